"""The rollout engine in this process: scheduler, KV cache, model runner."""
