"""KV-cache allocators: pure data structures over physical blocks (standard library and numpy only)."""
