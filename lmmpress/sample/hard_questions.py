"""The questions of the harder sample: two attributes in one answer, title against picture, and a condition.

They use only characters of the sample, so that its tokenizer, and with it the weights of its model, serve here too.
"""

from __future__ import annotations

from random import Random

from lmmpress.sample.advert import Advert, Row, answer
from lmmpress.sample.copywriting import CLASSES, PROMPT, QUESTIONS

TASKS: tuple[str, ...] = (
    "content", "color_and_style", "form_and_logo", "title_and_picture", "which_sells", "condition",
)  # fmt: skip

# Answers of `which_sells`.
PICTURE, TITLE, BOTH, NEITHER = "图片", "标题", "图片和标题", "以外"

# One task names a class too.
HARD_QUESTIONS: dict[str, tuple[str, ...]] = {
    "content": QUESTIONS["content"],
    "color_and_style": (
        "标题为“{title}”,描述图片的背景颜色和设计风格",
        "结合标题“{title}”,图片是什么底色,什么风格?",
        "图片背景是什么颜色,采用哪种设计风格?标题为“{title}”",
    ),
    "form_and_logo": (
        "标题为“{title}”,描述图片的表现形式和品牌标识",
        "结合标题“{title}”,图片以什么形式展示哪个品牌?",
        "图片采用哪种表现形式,是哪个品牌?标题为“{title}”",
    ),
    "title_and_picture": (
        "标题为“{title}”,描述标题和图片的行业类别",
        "标题“{title}”卖什么类别,图片展示什么类别?",
        "标题和图片的商品属于哪个行业?标题为“{title}”",
    ),
    "which_sells": (
        "标题为“{title}”,{named}是标题商品,是图片商品?",
        "结合标题“{title}”,图片和标题哪个卖{named}?",
        "图片和标题,哪个商品属于{named}?标题为“{title}”",
    ),
    "condition": (
        "标题为“{title}”,附赠商品时描述背景颜色,以外描述表现形式",
        "结合标题“{title}”,标题送赠品时判断底色,以外判断形式",
        "标题送商品时,是什么背景颜色?以外是哪种表现形式?标题为“{title}”",
    ),
}


def ask_hard(advert: Advert, rng: Random) -> list[Row]:
    """The six rows of an advertisement: one for each task, in the order of `TASKS`."""
    return [_ask(advert, task, rng) for task in TASKS]


def _ask(advert: Advert, task: str, rng: Random) -> Row:
    named = ""
    if task == "condition":
        reply = answer(advert, "manifestation" if advert.title.gift is None else "background_color")
    elif task == "which_sells":
        chosen = _named_class(advert, rng)
        named, reply = CLASSES[chosen], which_sells(advert, chosen)
    elif task == "title_and_picture":
        product = advert.title.product
        reply = ("" if product is None else CLASSES[product]) + CLASSES[advert.pictogram]
    elif task == "color_and_style":
        reply = answer(advert, "background_color") + answer(advert, "style")
    elif task == "form_and_logo":
        reply = answer(advert, "manifestation") + answer(advert, "logo")
    else:
        reply = answer(advert, task)
    question = rng.choice(HARD_QUESTIONS[task]).format(title=advert.title.text, named=named)
    return Row(task, PROMPT.format(question=question), reply)


def which_sells(advert: Advert, named: int) -> str:
    """Who sells a product of the named class; a gift is not sold."""
    by_picture, by_title = advert.pictogram == named, advert.title.product == named
    if by_picture:
        return BOTH if by_title else PICTURE
    return TITLE if by_title else NEITHER


def _named_class(advert: Advert, rng: Random) -> int:
    """The class of the picture, of the title, or any: so that no answer is much more frequent than the others. The
    title's is what it sells, else its gift, which is the wrong one to go by."""
    title = advert.title
    of_title = title.product if title.product is not None else title.gift
    classes = [advert.pictogram, of_title, None]
    chosen = rng.choice(classes)
    return rng.randrange(len(CLASSES)) if chosen is None else chosen
