"""`make bench`: how fast this machine trains, samples, plans, evaluates and reports, against its own matrix products."""
