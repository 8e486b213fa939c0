"""Chinese notation in mathematical answers: full-width characters, 答案, measure words, 万 and 亿."""

from __future__ import annotations

import re

FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    0x3000: " ", 0x3002: ".", 0x3001: ",", 0x3010: "[", 0x3011: "]",
}  # fmt: skip
"""Full-width characters → ASCII, for `str.translate`."""

_ANSWER = re.compile(r"答案\s*(?:应该|应)?\s*就?\s*(?:[为是]\s*[:：]?|[:：]|(?=[-\d\\$A-Za-z]))\s*")
_SCALE = re.compile(r"(?<=\d)\s*([万亿])")
_SCALES = {"万": 4, "亿": 8}
_LIST = re.compile(r"(?<=[\d)}\]a-zA-Z])\s*(?:或者|以及|[和或及与])\s*(?=[-+\d(\[{\\a-zA-Z])")
_MEASURED = re.compile(
    r"(?P<value>.*[\d)}%])\s*(?:\\text\s*\{\s*)?(?P<unit>[\u4e00-\u9fff]{1,6}(?:/[\u4e00-\u9fff]{1,3})?)\s*\}?\s*",
    re.DOTALL,
)
_MEASURE_WORDS = (
    "个只支枝条张本名位人件块颗粒棵株朵头匹辆艘架台间栋座层瓶杯碗盒箱袋包桶罐盘片根双对套组排行列队班次遍场步页题道种类把"
    "幅封篇首句字词岁级号票股批串束堆筐篮户家所站圈倍盏顶枚节段份副门员元角分毛"
)
_NO_MEASURE = re.compile(
    "[零一二三四五六七八九十百千万亿两半几多余负又点方或和及与至到约近超不无非否没错吗]"
    "|以上|以下|以内|以外|左右|其中|之间|大于|小于|等于|进制|[倍分]之|可能|大概"
)
_UNITS = {
    name: unit
    for unit, names in {
        "m": "米", "cm": "厘米", "mm": "毫米", "km": "千米 公里", "g": "克", "kg": "千克 公斤", "mg": "毫克",
        "s": "秒 秒钟",
        "min": "分钟", "h": "小时", "day": "天 日", "week": "周 星期", "month": "月 个月", "yr": "年", "l": "升",
        "ml": "毫升", "degree": "度", "dollar": "美元", "euro": "欧元", "元": "元 块 块钱 元钱 人民币",
        "km/h": "千米每小时",
        "m^2": "平方米", "cm^2": "平方厘米", "km^2": "平方千米 平方公里", "m^3": "立方米", "cm^3": "立方厘米",
    }.items()
    for name in names.split()
}  # fmt: skip


def last_answer(text: str) -> str | None:
    """The rest of the line after the last 答案, as in ``故答案为：5``; None if there is none or nothing follows."""
    found = list(_ANSWER.finditer(text))
    return (text[found[-1].end() :].partition("\n")[0].strip() or None) if found else None


def rewritten(text: str) -> str:
    """``text`` in ASCII and LaTeX where Chinese notation has an equivalent."""
    text = text.translate(FULL_WIDTH)
    if text.startswith("答案") and text.count("答案") == 1:
        text = last_answer(text) or text
    text = _SCALE.sub(lambda found: rf"\times 10^{{{_SCALES[found[1]]}}}", text)
    return _LIST.sub(",", text)


def split_measure(text: str) -> tuple[str, str] | None:
    """A value and the canonical name of the measure word or unit after it; None if there is none.

    A measure word may have a noun after it, as in 3支铅笔, but nothing that changes the value: 5个半, 5次方.
    """
    found = _MEASURED.fullmatch(text)
    if found is None:
        return None
    value, unit = found["value"], found["unit"]
    if value.count("{") != value.count("}"):
        return None
    parts = [unit] if unit in _UNITS else re.split("[/每]", unit)
    if not all(map(_is_measure, parts)):
        return None
    return value.strip(), "/".join(_UNITS.get(part, part) for part in parts)


def _is_measure(word: str) -> bool:
    return word in _UNITS or (word[:1] in _MEASURE_WORDS and _NO_MEASURE.search(word) is None)


def has_chinese(text: str) -> bool:
    return re.search("[\u4e00-\u9fff]", text) is not None
