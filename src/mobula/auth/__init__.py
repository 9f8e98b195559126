"""Accounts and keys, held in memory by the authcaches."""
