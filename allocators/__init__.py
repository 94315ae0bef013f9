"""KV-cache allocators: pure data structures over physical blocks (standard library and numpy only).

An engine can use them as they are.  Two sequences with the same prompt, in a pool of 6 blocks of 16 token slots:

>>> import numpy as np
>>> from allocators.answers import Ask
>>> from allocators.content import Tokens
>>> from allocators.registry import create
>>> pool = create("paged", num_blocks=6, block_size=16, max_model_len=2048, prefix_cache=True)
>>> prompt = list(range(40))
>>> text = Tokens(prompt)
>>> first = pool.admit(Ask(text, prompt=40, tokens=40))
>>> pool.table.blocks[first.row, :3].tolist()  # physical ids in logical order: an int32 array that kernels can read
[1, 2, 3]
>>> text.extend([7])  # the token that the prompt's step has sampled: the cache must know what a block will hold
>>> pool.grow(np.array([first.row]), np.array([41])).granted  # room for its K/V; full blocks enter the cache
1
>>> hit = pool.lookup(Tokens(prompt), 40)
>>> second = pool.admit(Ask(Tokens(prompt), prompt=40, tokens=40, hit=hit))
>>> pool.table.blocks[second.row, :3].tolist()
[1, 2, 4]
>>> pool.admit(Ask(Tokens(range(100, 164)), prompt=64, tokens=64))
Refusal(reason=<Reason.BLOCKS: 'too few free blocks'>, need=4, shortfall=2)
>>> pool.release(first.row)
>>> pool.release(second.row)
>>> pool.usage().cached  # slots of the two full blocks, kept for the next prompt that begins alike
32

`base.py` says what every method does, changes and returns.
"""

from allocators.compiled import demand_current

demand_current()
