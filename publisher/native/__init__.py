"""Our own streaming quantizer and evaluator: programs that read a job file and print events."""
