"""The operator's command: plan, show, do."""
