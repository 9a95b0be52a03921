"""What runs Ray in a process: the session, a worker's main loop and executor, the processes of a local cluster."""
