"""A workload that is short of memory, of a moment."""

MEMORY = """\
name: memory
model: tiny-llama
device: {name: h100-80gb, kv_memory_gib: 0.0001}
engine: {max_num_seqs: 64, max_model_len: 256}
requests: {count: 120, arrivals: {kind: poisson, rate: 3000}, lengths: {kind: fixed, prompt: 64, output: 40}}
allocators:
  - {kind: paged}
slo: {ttft_s: 0.02}
"""
