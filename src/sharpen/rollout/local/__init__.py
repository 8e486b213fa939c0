"""The rollout engine in this process: scheduler, running batch, KV cache, model runners."""
