"""A small file of every trace format, as documented."""

import json
from pathlib import Path
from typing import Any

from workloads.requests import Requests
from workloads.streams import stream
from workloads.trace import Trace
from workloads.traces import read

MOONCAKE = [
    {"timestamp": 27482, "input_length": 1500, "output_length": 52, "hash_ids": [46, 47, 2353]},
    {"timestamp": 30535, "input_length": 1024, "output_length": 26, "hash_ids": [46, 47]},
    {"timestamp": 33535, "input_length": 600, "output_length": 1, "hash_ids": [46]},
]
BAILIAN = [
    {"chat_id": 55, "parent_chat_id": -1, "timestamp": 3.5, "input_length": 20, "output_length": 7, "type": "text",
     "turn": 1, "hash_ids": [1, 2]},
    {"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 40, "output_length": 132,
     "type": "text", "turn": 2, "hash_ids": [1, 2, 3]},
]  # fmt: skip
RAGPULSE = [
    {"timestamp": "27", "input_length": 700, "output_length": 127, "session_id": "a", "hash_ids": {
        "sys_prompt": [8325], "passages_ids": [6123], "history": [15215], "web_search": [], "user_input": [23648]}},
    {"timestamp": "29", "input_length": 650, "output_length": 10, "session_id": "b", "hash_ids": {
        "sys_prompt": [8325], "passages_ids": [6123], "history": [], "web_search": [], "user_input": [23649]}},
]  # fmt: skip
WEKA = {
    "id": "trace_0371", "models": ["m"], "block_size": 64, "hash_id_scope": "local",
    "tool_tokens": 1, "system_tokens": 2,
    "requests": [
        {"t": 0.0, "type": "s", "in": 128, "out": 5, "hash_ids": [1, 2]},
        {"t": 10.0, "type": "subagent", "agent_id": "x", "requests": [
            {"t": 0.5, "type": "n", "in": 64, "out": 7, "hash_ids": [9]}]},
        {"t": 36.0, "type": "n", "in": 200, "out": 542, "hash_ids": [1, 2, 3], "api_time": 6.94, "think_time": 0.0},
    ],
}  # fmt: skip
SHAREGPT = [
    {"id": "a", "conversations": [
        {"from": "human", "value": "x" * 40}, {"from": "gpt", "value": "y" * 80},
        {"from": "human", "value": "z" * 16}, {"from": "gpt", "value": "w" * 20}]},
    {"id": "b", "conversations": []},
    {"id": "c", "conversations": [{"from": "human", "value": "ab"}, {"from": "gpt", "value": "y" * 80}]},
]  # fmt: skip


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


FILES = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n46,ChatGPT,20,0,20,API log\n",
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n1.5,396,109.0\n4.314579,7,1\n",
    "vidur-lengths": "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n3772,54,3826,69.85185185185185\n",
    "splitwise": "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
    "0,2,0,1,1,4096,32\n",
    "turns": "conv_index,turn_index,role,gpt2_tokens,llama3_tokens\n"
    "0,0,u,34,34\n0,1,a,259,244\n0,2,u,36,36\n0,3,a,333,319\n",
    "sharegpt": json.dumps(SHAREGPT),
    "weka": json.dumps(WEKA),
    "bailian": lines(BAILIAN),
    "ragpulse": lines(RAGPULSE),
    "aiperf": lines([
        {"timestamp": 10535, "input_length": 672, "output_length": 52, "hash_ids": [46, 47], "session_id": "123"},
        {"delay": 500, "input_length": 900, "output_length": 10, "hash_ids": [46, 48], "session_id": "123"},
    ]),
    "aiperf-text": lines([
        {"session_id": "a", "turns": [
            {"text": "x" * 40, "timestamp": 2000, "output_length": 7}, {"texts": ["y" * 8, "z"], "delay": 500}]},
        {"text": "hello", "timestamp": 2250},
        {"timestamp": 3000, "output_length": 9, "messages": [
            {"role": "system", "content": "w" * 16},
            {"role": "user", "content": [{"type": "text", "text": "v"}, {"type": "image_url", "image_url": {}}]}]},
        {"timestamp": 4000, "payload": {"prompt": "u" * 12, "max_tokens": 3}},
        {"timestamp": 5000, "text_input": "t", "output_length": 2},
    ]),
    "mooncake": lines(MOONCAKE),
    "guidellm": lines([
        {"timestamp": 4.3, "input_length": 396, "output_length": 109},
        {"timestamp": 5.0, "input_length": 40, "output_length": 9},
    ]),
    "vllm-dataset": lines([{"prompt": "x" * 41, "output_tokens": 10}, {"prompt": "hello"}]),
    "vllm-result": '{"completed":2,"duration":6.0,"input_lens":[374,396],"output_lens":[44,109],'
    '"start_times":[100.0,104.3],"ttfts":[0.05,0.06],"generated_texts":["secret","text"]}',
    "csv": "id,arrival,prompt_len,output_len\n7,0.5,10,20\n8,1.5,11,21\n",
    "jsonl": lines([
        {"arrival": 0.5, "prompt_len": 10, "output_len": 20}, {"output_len": 21, "prompt_len": 11, "arrival": 1.5},
    ]),
}  # fmt: skip


def load(tmp_path: Path, content: str | bytes, **options: Any) -> Requests:
    path = tmp_path / "trace"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(Trace(trace=str(path), **options), stream(0, "spread"))
