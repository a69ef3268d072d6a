"""A small data set, and a processor that knows its words."""

import json
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

COLORS = {"红色": (220, 30, 30), "绿色": (30, 200, 30), "蓝色": (30, 30, 220), "黄色": (220, 220, 20)}


def make_processor(kind: str = "llama") -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import Blip2Processor, BlipImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

    characters = sorted(set("图片的背景颜色是什么?标题:新品包邮限时" + "".join(COLORS)))
    vocabulary = {
        token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<image>", "<unk>", *characters])
    }
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    if kind.startswith("text-"):
        return tokenizer
    images = BlipImageProcessorPil(size={"height": 16, "width": 16})
    if kind.startswith("llava"):
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
        return LlavaProcessor(
            images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
        )
    return Blip2Processor(images, tokenizer, num_query_tokens=4)


def write_data(folder: Path, sizes: dict[str, int]) -> Path:
    """Flat coloured pictures, two questions each, disjoint by split."""
    (folder / "images").mkdir(parents=True)
    lines, number = [], 0
    for split, count in sizes.items():
        for _ in range(count):
            answer = list(COLORS)[number % len(COLORS)]
            shade = tuple(min(255, value + number % 7) for value in COLORS[answer])
            name = f"images/{number:04d}.png"
            comment = PngInfo()  # no two files are the same, though some pictures are
            comment.add_text("number", str(number))
            Image.new("RGB", (16, 16), shade).save(folder / name, pnginfo=comment)
            for question in ("图片的背景颜色是什么?", "标题:新品包邮 背景颜色?"):
                row = {"file_name": name, "question": question, "answer": answer, "task": "color", "split": split}
                lines.append(json.dumps(row, ensure_ascii=False))
            number += 1
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder
