"""Who quantizes: engines that turn a plan into a job file and name a program that runs it."""
