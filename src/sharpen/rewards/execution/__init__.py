"""How reward functions are called: concurrently, with time limits and retries, in threads or processes."""
