"""Who loads Sluice: one class for each kind of client. Importing these imports Locust, which patches the process."""
