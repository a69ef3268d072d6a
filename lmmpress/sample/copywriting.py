"""The texts of the sample: answers, product names, advertisement titles and questions.

The titles make the language side work. The model must read from the sentence which product is sold: a gift
(`买A送B`, `B免费领 入手A`) names a product of another class that has to be ignored, and for a generic title
(`新品上市`) the pictogram in the picture decides.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

TASKS: tuple[str, ...] = ("background_color", "manifestation", "content", "logo", "style")

CLASSES: tuple[str, ...] = (
    "服饰", "数码电器", "食品", "家居", "美妆个护", "图书文具", "运动户外", "宠物用品",
)  # fmt: skip

# The answers of every task; an attribute of an advertisement is an index into its task's tuple.
ANSWERS: dict[str, tuple[str, ...]] = {
    "background_color": ("红色", "橙色", "明黄色", "草绿色", "天蓝色", "紫色", "黑色", "白色"),
    "manifestation": ("单品图", "拼图", "边框图", "文字图", "圆形聚焦图", "角标图"),
    "content": CLASSES,
    "logo": ("支付宝", "淘宝", "小米", "华为", "哔哩哔哩", "耐克", "星巴克", "麦当劳"),
    "style": ("扁平", "描边", "渐变", "网点", "斜条纹", "方格纹"),
}

# Product words by class. Some contain a word of another class (咖啡/咖啡机, 床垫/宠物床垫, 电视/电视柜), so
# that matching keywords is not enough.
PRODUCTS: tuple[tuple[str, ...], ...] = (
    ("衬衫", "卫衣", "长裙", "风衣", "牛仔裤", "瑜伽裤", "球鞋", "毛衣", "袜子", "礼帽"),
    ("手机", "耳机", "电视", "相机", "平板", "音箱", "咖啡机", "吹风机", "键盘", "冰箱"),
    ("咖啡", "牛奶", "饼干", "坚果", "火锅", "水果", "鸡胸肉", "面包", "月饼", "茶叶"),
    ("沙发", "床垫", "台灯", "电视柜", "书桌", "地毯", "窗帘", "衣柜", "枕头", "餐椅"),
    ("口红", "面膜", "香水", "眼霜", "洗发水", "粉底", "牛奶皂", "护手霜", "眉笔", "面霜"),
    ("小说", "钢笔", "笔记本", "绘本", "字典", "铅笔", "书包", "橡皮", "台历", "画册"),
    ("篮球", "瑜伽垫", "帐篷", "哑铃", "单车", "球拍", "跑步机", "滑板", "睡袋", "泳镜"),
    ("猫粮", "狗粮", "猫砂", "牵引绳", "鱼缸", "猫窝", "狗窝", "磨牙棒", "宠物床垫", "鸟笼"),
)

ADJECTIVES: tuple[str, ...] = ("秋季", "新款", "加厚", "便携", "经典", "高端", "轻奢", "大号", "进口", "爆款")
PROMOTIONS: tuple[str, ...] = ("热卖", "包邮", "五折", "直降", "上新", "清仓", "特价", "秒杀")

# A, C, D: products of the class that is sold; B: the gift, of another class; J: an adjective; P: a promotion.
TITLES: dict[str, tuple[str, ...]] = {
    "plain": ("{J}{A}{P}", "{A}{P}", "{J}{A}", "{P}{J}{A}"),
    "several": ("{A}{C}组合{P}", "{A}配{C}", "{A}{C}{D}套装", "{J}{A}加{C}"),
    "gift": (
        "买{A}送{B}", "{A}附赠{B}", "购{A}即得{B}", "{B}免费领 入手{A}", "赠{B} {J}{A}", "送{B}!{A}{P}",
        "{A}(送{B})", "{B}随单送 {A}{P}", "买{A}{C}送{B}", "{J}{A}下单赢{B}",
    ),
    "generic": ("新品上市", "限时特惠", "全场{P}", "会员专享", "年终大促", "品牌日狂欢"),
    "generic_gift": (
        "新品上市 送{B}", "下单即得{B}", "全场{P} 赠{B}", "{B}免费领 限时特惠", "进店送{B}", "{B}随单送",
    ),
}  # fmt: skip

# A third of the titles say nothing about the product.
KINDS: tuple[str, ...] = ("plain", "several", "gift", "generic", "generic_gift")
KIND_WEIGHTS: tuple[int, ...] = (18, 12, 36, 12, 22)

QUESTIONS: dict[str, tuple[str, ...]] = {
    "background_color": (
        "标题为“{title}”,描述图片的背景颜色",
        "结合标题“{title}”,图片底色是什么?",
        "图片背景是什么颜色?标题为“{title}”",
    ),
    "manifestation": (
        "标题为“{title}”,描述图片的表现形式",
        "结合标题“{title}”,图片以什么形式展示?",
        "图片采用哪种表现形式?标题为“{title}”",
    ),
    "content": (
        "结合标题描述图片商品的行业类别,标题为“{title}”",
        "标题为“{title}”,图片商品属于哪个行业?",
        "看图和标题“{title}”,判断商品类别",
    ),
    "logo": (
        "标题为“{title}”,描述图片的品牌标识",
        "结合标题“{title}”,图片中是哪个品牌?",
        "图片标识属于哪个品牌?标题为“{title}”",
    ),
    "style": (
        "标题为“{title}”,描述图片的设计风格",
        "结合标题“{title}”,图片是什么风格?",
        "图片采用哪种设计风格?标题为“{title}”",
    ),
}

PROMPT = "### Human: {question}### Assistant:"


class Title(NamedTuple):
    """A title, its kind (a key of `TITLES`), and the classes it sells and gives away (None: nothing)."""

    text: str
    kind: str
    product: int | None
    gift: int | None


def write_title(rng: Random) -> Title:
    """Draw a title; every class is equally likely to be sold, every other class to be the gift."""
    kind = rng.choices(KINDS, KIND_WEIGHTS)[0]
    template = rng.choice(TITLES[kind])
    product = rng.randrange(len(CLASSES))
    gift = (product + rng.randrange(1, len(CLASSES))) % len(CLASSES)
    sold = rng.sample(PRODUCTS[product], 3)
    text = template.format(
        A=sold[0],
        C=sold[1],
        D=sold[2],
        B=rng.choice(PRODUCTS[gift]),
        J=rng.choice(ADJECTIVES),
        P=rng.choice(PROMOTIONS),
    )
    return Title(text, kind, product if "{A}" in template else None, gift if "{B}" in template else None)


def write_question(task: str, title: str, rng: Random) -> str:
    """The full prompt of one row: one of the task's question templates with the title, in the chat format."""
    return PROMPT.format(question=rng.choice(QUESTIONS[task]).format(title=title))


def characters() -> str:
    """All characters that occur in the sample, sorted; the font subset and the tokenizer must cover them."""
    frames = [PROMPT, *ADJECTIVES, *PROMOTIONS]
    tables = (ANSWERS.values(), PRODUCTS, TITLES.values(), QUESTIONS.values())
    words = [word for table in tables for row in table for word in row]
    return "".join(sorted(set("".join(frames + words))))
