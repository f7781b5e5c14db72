"""Who runs the parts of a job: today this process, or those that torchrun started on this machine. Uses base alone."""
