"""How the load changes in time: one file each, given to Locust beside the locustfile. They share -u, -r and -t."""
