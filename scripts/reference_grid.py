#!/usr/bin/env python3
"""The grid of `biassweep-bench grid` with transformers and PEFT, as one would write it plainly.

One fine-tune for each bias, ratio, mitigation and seed, each evaluated on all tasks of the domain.
Batches are padded; the model computes in float32 on the processor. It reads the examples, their
order, the first adapter and the questions from the directory that the benchmark made, so that only
the computing differs, and appends a line for each fine-tune to DIRECTORY/reference.jsonl.

Needs torch, transformers and peft.

    scripts/reference_grid.py --directory grid --model HuggingFaceTB/SmolLM2-135M-Instruct --every 8
"""

import argparse
import json
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup


def padded(sequences, pad, left=False):
    """Token ids and attention mask, (sequences, longest)."""
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), pad)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(sequences):
        columns = slice(longest - len(tokens), longest) if left else slice(0, len(tokens))
        ids[row, columns] = torch.tensor(tokens)
        mask[row, columns] = 1
    return ids, mask


class Alignment:
    """lambda * |m_original - m_augmented|^2, m the mean last hidden state of a group's items in the
    batch, filled up with a running mean where the batch holds fewer than four of them."""

    ENOUGH, INERTIA = 4, 0.9

    def __init__(self, weight):
        self.weight = weight
        self.running = {}

    def __call__(self, hidden, mask, groups):
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        means = (hidden * weights).sum(1) / weights.sum(1)
        centres = {}
        for group in ("original", "augmented"):
            rows = [row for row, name in enumerate(groups) if name == group]
            running = self.running.get(group)
            if not rows:
                centres[group] = running
                continue
            own = means[rows].mean(0)
            filling = max(0, self.ENOUGH - len(rows)) if running is not None else 0
            if filling:
                centres[group] = (len(rows) * own + filling * running) / (len(rows) + filling)
            else:
                centres[group] = own
            seen = own.detach()
            self.running[group] = (
                seen if running is None else self.INERTIA * running + (1 - self.INERTIA) * seen
            )
        if any(centre is None for centre in centres.values()):
            return 0.0
        return self.weight * (centres["original"] - centres["augmented"]).pow(2).sum()


def fine_tune(model, grid, job, items, pad):
    """Trains the adapter; returns the loss of each step."""
    training = grid["training"]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable, lr=training["learning_rate"], weight_decay=training["weight_decay"]
    )
    size, chosen = training["batch_size"], job["items"]
    steps = training["epochs"] * ((len(chosen) + size - 1) // size)
    warmup = -int(-training["warmup_fraction"] * steps // 1)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    alignment = Alignment(job["alignment_weight"]) if job["alignment_weight"] else None
    losses = []
    model.train()
    for order in job["orders"]:
        for first in range(0, len(order), size):
            batch = [items[chosen[index]] for index in order[first : first + size]]
            groups = [job["groups"][index] for index in order[first : first + size]]
            ids, mask = padded([item["tokens"] for item in batch], pad)
            labels = ids.clone()
            labels[mask == 0] = -100
            for row, item in enumerate(batch):
                labels[row, : item["answer_start"]] = -100
            output = model(
                input_ids=ids,
                attention_mask=mask,
                labels=labels,
                output_hidden_states=alignment is not None,
            )
            loss = output.loss
            if alignment:
                loss = loss + alignment(output.hidden_states[-1], mask, groups)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, training["gradient_clip"])
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


@torch.inference_mode()
def evaluate(model, question, pad, batch_size=32):
    """Answers the questions of a task; returns the accuracy, or the number of texts."""
    model.eval()
    prompts = question["prompts"]
    if question["kind"] == "texts":
        texts = 0
        prompts = prompts * question["samples"]
        for first in range(0, len(prompts), batch_size):
            ids, mask = padded(prompts[first : first + batch_size], pad, left=True)
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=question["temperature"],
                top_k=question["top_k"],
                max_new_tokens=question["maximum_tokens"],
                eos_token_id=question["stop"],
                pad_token_id=pad,
            )
            texts += len(out)
        return {"texts": texts}

    # Every answer is one token: one forward pass a prompt, logits at its end.
    answers = torch.tensor([answer[0] for answer in question["answers"]])
    assert all(len(answer) == 1 for answer in question["answers"])
    scores = []
    for first in range(0, len(prompts), batch_size):
        ids, mask = padded(prompts[first : first + batch_size], pad, left=True)
        logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits[:, -1]
        scores.append(torch.log_softmax(logits, -1)[:, answers])
    scores = torch.cat(scores)
    gold = question["gold"]
    calibration = scores[[index for index, label in enumerate(gold) if label is None]].mean(0)
    asked = [index for index, label in enumerate(gold) if label is not None]
    best = (scores[asked] - calibration).argmax(1)
    right = sum(int(b) == gold[index] for b, index in zip(best, asked))
    return {"accuracy": right / len(asked)}


def load_adapter(model, grid, job, directory):
    """Starts from the benchmark's adapter: the A matrices as written, B zero."""
    adapter = grid["adapters"][job["adapter"]]
    values = torch.frombuffer(
        bytearray((directory / adapter["file"]).read_bytes()), dtype=torch.float32
    )
    parameters = dict(model.named_parameters())
    for tensor in adapter["tensors"]:
        name = tensor["name"].replace(".weight", ".default.weight")
        parameter = parameters[name]
        first, count = tensor["offset"], parameter.numel()
        with torch.no_grad():
            parameter.copy_(values[first : first + count].view_as(parameter))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, required=True, help="made by the benchmark")
    parser.add_argument("--model", required=True, help="Hugging Face name or directory")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--jobs", help="numbers of the fine-tunes to run, such as 0,7,13; default: all"
    )
    parser.add_argument("--every", type=int, default=1, help="run every so many fine-tunes only")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    directory = arguments.directory
    grid = json.loads((directory / "grid.json").read_text())
    items = [json.loads(line) for line in (directory / "items.jsonl").open()]
    questions = [json.loads(line) for line in (directory / "questions.jsonl").open()]
    jobs = grid["jobs"][:: arguments.every]
    if arguments.jobs:
        jobs = [grid["jobs"][int(number)] for number in arguments.jobs.split(",")]

    base = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    pad = base.config.pad_token_id if base.config.pad_token_id is not None else 0
    training = grid["training"]
    for job in jobs:
        torch.manual_seed(job["seed"])
        model = get_peft_model(
            base,
            LoraConfig(
                r=training["rank"],
                lora_alpha=training["alpha"],
                target_modules=training["targets"],
                layers_to_transform=training["layers"],
                lora_dropout=0.0,
                bias="none",
                task_type="CAUSAL_LM",
            ),
        )
        load_adapter(model, grid, job, directory)
        started, processor = time.perf_counter(), time.process_time()
        losses = fine_tune(model, grid, job, items, pad)
        trained = time.perf_counter()
        results = {question["task"]: evaluate(model, question, pad) for question in questions}
        ended = time.perf_counter()
        last = losses[-max(1, len(losses) // 10) :]
        line = {
            "job": job["number"],
            "conditions": job["conditions"],
            "seconds": ended - started,
            "training_seconds": trained - started,
            "processor_seconds": time.process_time() - processor,
            "steps": len(losses),
            "first_loss": losses[0],
            "final_loss": sum(last) / len(last),
            "tasks": results,
            "torch": torch.__version__,
        }
        with (directory / "reference.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        base = model.unload()


if __name__ == "__main__":
    main()
