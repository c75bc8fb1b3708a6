"""Which teacher, base and reward model this deployment uses, and their exact version."""
