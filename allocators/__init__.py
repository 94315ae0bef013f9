"""KV-cache allocators: pure data structures over physical blocks (standard library and numpy only)."""

from allocators.compiled import demand_current

demand_current()
