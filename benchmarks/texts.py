"""CLIP's text tower on prompts padded to 77 tokens, and trimmed to their own length.

    python benchmarks/texts.py [--threads 1]

The text tower of CLIP ViT-B/16 with random weights, batches of 64; prompts such as "a photo of a
golden retriever." have 8 to 12 tokens. Medians of processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from transformers import CLIPConfig, CLIPModel

from pipeline import machine

BATCH, END = 64, 49407


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    print(machine())
    text = {"bos_token_id": 0, "eos_token_id": 2}
    model = CLIPModel(CLIPConfig(text_config=text)).eval()
    for length in (8, 12, 77):
        tokens = torch.randint(3, 40_000, (BATCH, length))
        tokens[:, -1] = END
        spent = []
        for _ in range(4):
            begun = time.process_time()
            with torch.inference_mode():
                model.get_text_features(input_ids=tokens)
            spent.append(time.process_time() - begun)
        print(f"{length:3} tokens: {BATCH / statistics.median(spent):6.0f} prompts/s", flush=True)


if __name__ == "__main__":
    main()
