"""What the operating system gives: files, signals, streams, worker processes, memory."""
