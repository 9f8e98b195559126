"""Drills: what happened to the clients of a region while it was harmed, whether that was right, and a report. Pure, all that is here."""
