"""Computes logits of exported models with PEFT or transformers, for ExportTests.

Usage: check-export.py JOBS.json

Each job: base (a Hugging Face directory), adapter (a PEFT directory, optional), ids (rows of
tokens), output (a safetensors file for `logits`) and text (optional: the tokens that AutoTokenizer
makes of it are written as `tokens`).
"""

import json
import sys

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

for job in json.load(open(sys.argv[1])):
    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32)
    if job.get("adapter"):
        model = PeftModel.from_pretrained(model, job["adapter"])
    with torch.no_grad():
        result = {"logits": model.eval()(torch.tensor(job["ids"])).logits.float().contiguous()}
    if job.get("text"):
        tokens = AutoTokenizer.from_pretrained(job["base"])(job["text"], add_special_tokens=False)
        result["tokens"] = torch.tensor(tokens["input_ids"], dtype=torch.float32)
    save_file(result, job["output"])
