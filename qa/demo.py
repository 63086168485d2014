"""Invented Persian encyclopedia paragraphs and questions about them: the data set that ships, as a program.

Facts are drawn anew for every paragraph, so none can be known by heart: only reading the paragraph answers the
question. A name belongs to one part for good: whatever validation asks about, training has never named.

    python -m qa.demo --out data/demo        writes train.json, valid.json (SQuAD v2) and pretrain.txt
"""

import random
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from minitransformer.system.errors import DataError, command_line
from minitransformer.system.files import write_text
from minitransformer.system.flags import FlagParser
from qa.squad import Answer, Example, write

PARTS = ("train", "valid")
QUESTIONS = {"train": 6400, "valid": 300}
PRETRAINING = {"train": 256_000, "valid": 1000}
NO_ANSWER = "نامعلوم"  # "unknown": what a pre-training document answers where the paragraph does not


class Relation(NamedTuple):
    """One kind of fact: its name, whom it is about, what its values are, how Persian states it and asks for it.

    {e} is the entity ("شهر باغ‌انار", "باغ‌انار" or, in a statement, "این شهر"), {v} the value. How a fact is stated
    and how it is asked for are drawn apart, so a question often has other words than the sentence that answers it.
    """

    label: str
    kind: str
    value: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


class Kind(NamedTuple):
    """What entities of one kind are called: in full, by name alone, by a word that points back; and idle remarks."""

    full: str
    bare: str
    pronoun: str
    remarks: tuple[str, ...]  # true of any of them and no answer to any question; {y} is some year


def _words(text: str) -> list[str]:
    return text.split()


# Names are compounds: every part of a validation name is known from training, the name itself is not.
NAMES: dict[str, tuple[str, list[str], list[str]]] = {  # name of a pool: (joint, first parts, second parts)
    "person": (
        " ",
        _words(
            "آرش بهرام پرویز جمشید داریوش رامین سهراب شاپور فرهاد کیوان مهران نریمان "
            "آناهیتا پروانه پوران ترانه رودابه ژاله سیمین شیرین فرنگیس گلنار مهین نسرین"
        ),
        _words(
            "بهمنی پارسا تهمتن جاویدان خردمند دادگر راستین زرگر سپهری شهریاری فرزانه کاویانی "
            "گلستانی مهرگان نامور نیک‌نام هوشیار یزدانی آذری امیدوار بردبار توانا دلاور کوشا"
        ),
    ),
    "city": (
        "\u200c",
        _words("باغ چشمه تپه دشت دره سنگ ده تخت کلات برج تنگ پل"),
        _words("انار بادام گردو آهو شاهین سبز سرخ کبود نو کهن بلند سفید"),
    ),
    "country": (
        " ",
        _words(
            "آذرستان بهارستان تورستان رازستان زرستان سپهرستان سروستان شیدستان کاوستان گلستان "
            "لالستان ماهستان مهرستان نارستان نیکستان هورستان یادستان ارژستان بادستان پارستان"
        ),
        _words("شمالی جنوبی خاوری باختری"),
    ),
    "river": (
        "\u200c",
        _words(
            "زرین سیمین نیلی تلخ خوش گرم روشن زنده ماهی شاه خرم ژرف پاک رنگین سبک تنگ کج فراخ مشک نقش خاک گل پیچ آهن"
        ),
        _words("رود آب جوی"),
    ),
    "mountain": (
        "\u200c",
        _words(
            "برف الماس عقاب پلنگ گرگ ماه ستاره آتش یخ سیاه سایه نمک مس زاغ کمان تیغ نگین زین "
            "خروس سنگین تاج آسمان پیل یشم"
        ),
        _words("کوه ستیغ چکاد"),
    ),
    "book": (
        " ",
        _words("باغ راه شب خواب باران چراغ پاییز سکوت دریا مرغ سفر چشم آواز قصر"),
        _words("خاموش گمشده بی‌پایان آبی دور تنها غمگین ناتمام کهنه پنهان آخر شیشه‌ای"),
    ),
    "library": (
        " ",
        _words("گنج سرای بوستان کان فروغ کاخ آستان پرتو"),
        _words("دانش خرد هنر سخن ادب اندیشه دانایی فرهنگ آگاهی فردا"),
    ),
    "palace": (
        "\u200c",
        _words("سه پنج شش هفت هشت نه بیست سی چهل شصت"),
        _words("ستون آینه پنجره در ایوان پله تاق حوض برج"),
    ),
    "team": (
        " ",
        _words("شاهین پیکان توفان آرمان پولاد صنعت تندر پیروزی امید پاس"),
        _words("شمال جنوب خاور باختر مرکز ساحل کویر بندر"),
    ),
}

WORDS: dict[str, list[str]] = {
    "currency": _words("دینار درهم روپیه کرون پزو لیره فرانک شیلینگ تالر فلورین اشرفی قران عباسی مثقال گیلدر سکه"),
    "language": _words("سغدی خوارزمی تخاری مادی پهلوی بلخی سکایی عیلامی آرامی سریانی لاتین یونانی ختنی اوستایی"),
    "lake": [
        f"دریاچهٔ {name}"
        for name in _words("نیلوفر فیروزه مرغابی آرام نقره قو پریان مهتاب شفق ارغوان کهربا زمرد صدف گوزن غروب لاجورد")
    ],
    "souvenir": _words(
        "گز سوهان زعفران گلاب پسته خرما فرش گلیم عسل زیتون چای برنج انجیر سفال باقلوا قطاب ترنج نبات کلوچه حنا"
    ),
    "profession": _words(
        "آهنگر بافنده نجار پزشک نقاش شاعر معلم قاضی طبیب خطاط بازرگان سفالگر کشاورز ناخدا وزیر منجم نوازنده کفاش"
    ),
    "colour": _words("سرخ آبی سبز زرد بنفش نارنجی سفید سیاه صورتی خاکستری طلایی نقره‌ای فیروزه‌ای قهوه‌ای"),
}

NUMBERS: dict[str, tuple[int, int, int, str]] = {  # lowest, highest, step, the words after it
    "year": (1100, 1399, 1, ""),
    "population": (20, 990, 10, " هزار نفر"),
    "length": (60, 990, 10, " کیلومتر"),
    "height": (1100, 5900, 100, " متر"),
    "volumes": (10, 99, 1, " هزار جلد"),
}

KINDS: dict[str, Kind] = {
    "country": Kind(
        "کشور {}",
        "{}",
        "این کشور",
        (
            "{e} همسایگان بسیاری دارد.",
            "نام {e} در نوشته‌های کهن آمده است.",
            "مرزهای {e} در سال {y} کشیده شد.",
            "بیشتر زمین‌های {e} کوهستانی است.",
        ),
    ),
    "city": Kind(
        "شهر {}",
        "{}",
        "این شهر",
        (
            "{e} تابستان‌هایی گرم و خشک دارد.",
            "در {e} بازاری کهن دیده می‌شود.",
            "نخستین نقشهٔ {e} در سال {y} کشیده شد.",
            "گردشگران بسیاری به {e} سفر می‌کنند.",
        ),
    ),
    "river": Kind(
        "رود {}",
        "{}",
        "این رود",
        (
            "در {e} ماهی فراوان است.",
            "{e} در بهار پرآب می‌شود.",
            "سیل {e} در سال {y} خرابی بسیار به بار آورد.",
            "کشتزارهای پیرامون {e} سرسبزند.",
        ),
    ),
    "mountain": Kind(
        "کوه {}",
        "{}",
        "این کوه",
        (
            "دامنهٔ {e} پوشیده از جنگل است.",
            "{e} بیشتر سال برف دارد.",
            "پناهگاه {e} در سال {y} بازسازی شد.",
            "کوه‌نوردان {e} را دوست دارند.",
        ),
    ),
    "book": Kind(
        "کتاب «{}»",
        "«{}»",
        "این کتاب",
        (
            "{e} خوانندگان بسیاری دارد.",
            "داستان {e} در روستایی دور می‌گذرد.",
            "{e} در سال {y} جایزه گرفت.",
            "منتقدان {e} را ستوده‌اند.",
        ),
    ),
    "person": Kind(
        "{}",
        "{}",
        "او",
        (
            "{e} در سال {y} به سفر رفت.",
            "از {e} نامه‌های بسیاری مانده است.",
            "{e} سه فرزند داشت.",
            "مردم از {e} به نیکی یاد می‌کنند.",
        ),
    ),
    "library": Kind(
        "کتاب‌خانهٔ {}",
        "کتاب‌خانهٔ {}",
        "این کتاب‌خانه",
        (
            "{e} تالاری بزرگ دارد.",
            "{e} در سال {y} بازسازی شد.",
            "دانشجویان هر روز به {e} می‌روند.",
            "نسخه‌های خطی {e} کمیاب است.",
        ),
    ),
    "palace": Kind(
        "کاخ {}",
        "کاخ {}",
        "این کاخ",
        (
            "{e} در میان باغی بزرگ جای دارد.",
            "دیوارهای {e} پر از نقاشی است.",
            "زلزلهٔ سال {y} به {e} آسیب زد.",
            "{e} امروز موزه است.",
        ),
    ),
    "team": Kind(
        "تیم {}",
        "{}",
        "این تیم",
        (
            "{e} هواداران بسیاری دارد.",
            "{e} در سال {y} قهرمان شد.",
            "بازی‌های {e} تماشایی است.",
            "{e} باشگاهی پرآوازه است.",
        ),
    ),
}

RELATIONS: dict[str, Relation] = {
    "capital": Relation(
        "پایتخت",
        "country",
        "city",
        ("پایتخت {e}، {v} است.", "شهر {v} پایتخت {e} به شمار می‌رود.", "{e} شهر {v} را به پایتختی برگزیده است."),
        ("پایتخت {e} کجاست؟", "کدام شهر پایتخت {e} است؟", "نام پایتخت {e} چیست؟"),
    ),
    "currency": Relation(
        "واحد پول",
        "country",
        "currency",
        ("واحد پول {e}، {v} است.", "در {e} با {v} داد و ستد می‌کنند.", "پول رسمی {e}، {v} نام دارد."),
        ("واحد پول {e} چیست؟", "پول رسمی {e} چه نام دارد؟", "مردم {e} با چه پولی داد و ستد می‌کنند؟"),
    ),
    "language": Relation(
        "زبان رسمی",
        "country",
        "language",
        ("زبان رسمی {e}، {v} است.", "مردم {e} به زبان {v} سخن می‌گویند.", "{v} زبان رسمی {e} شمرده می‌شود."),
        ("زبان رسمی {e} چیست؟", "مردم {e} به چه زبانی سخن می‌گویند؟", "کدام زبان در {e} رسمی است؟"),
    ),
    "population": Relation(
        "جمعیت",
        "city",
        "population",
        ("جمعیت {e}، {v} است.", "{e} {v} جمعیت دارد.", "در {e} {v} زندگی می‌کنند."),
        ("جمعیت {e} چقدر است؟", "{e} چند نفر جمعیت دارد؟", "چند نفر در {e} زندگی می‌کنند؟"),
    ),
    "mayor": Relation(
        "شهردار",
        "city",
        "person",
        ("شهردار {e}، {v} است.", "{v} شهردار {e} است.", "شهرداری {e} را {v} بر عهده دارد."),
        ("شهردار {e} کیست؟", "چه کسی شهردار {e} است؟", "شهرداری {e} بر عهدهٔ کیست؟"),
    ),
    "souvenir": Relation(
        "سوغات",
        "city",
        "souvenir",
        ("سوغات {e}، {v} است.", "{v} سوغات {e} است.", "مسافران از {e} {v} به سوغات می‌برند."),
        ("سوغات {e} چیست؟", "مسافران از {e} چه سوغاتی می‌برند؟", "کدام کالا سوغات {e} است؟"),
    ),
    "length": Relation(
        "درازای",
        "river",
        "length",
        ("درازای {e}، {v} است.", "{e} {v} درازا دارد.", "طول {e} به {v} می‌رسد."),
        ("درازای {e} چقدر است؟", "{e} چند کیلومتر درازا دارد؟", "طول {e} چند کیلومتر است؟"),
    ),
    "source": Relation(
        "سرچشمهٔ",
        "river",
        "mountain",
        ("{e} از {v} سرچشمه می‌گیرد.", "سرچشمهٔ {e}، {v} است.", "آب {e} از کوه {v} می‌آید."),
        ("{e} از کجا سرچشمه می‌گیرد؟", "سرچشمهٔ {e} کدام کوه است؟", "آب {e} از کدام کوه می‌آید؟"),
    ),
    "mouth": Relation(
        "مقصد",
        "river",
        "lake",
        ("{e} به {v} می‌ریزد.", "آب {e} سرانجام به {v} می‌ریزد.", "مقصد {e}، {v} است."),
        ("{e} به کجا می‌ریزد؟", "{e} به کدام دریاچه می‌ریزد؟", "مقصد {e} کدام دریاچه است؟"),
    ),
    "height": Relation(
        "بلندی",
        "mountain",
        "height",
        ("بلندی {e}، {v} است.", "{e} {v} بلندی دارد.", "ارتفاع {e} به {v} می‌رسد."),
        ("بلندی {e} چقدر است؟", "{e} چند متر بلندی دارد؟", "ارتفاع {e} چند متر است؟"),
    ),
    "climber": Relation(
        "نخستین فاتح",
        "mountain",
        "person",
        ("{v} نخستین فاتح {e} بود.", "نخستین بار {v} به قلهٔ {e} رسید.", "{e} را نخستین بار {v} فتح کرد."),
        ("نخستین فاتح {e} که بود؟", "چه کسی نخستین بار به قلهٔ {e} رسید؟", "{e} را نخستین بار چه کسی فتح کرد؟"),
    ),
    "author": Relation(
        "نویسندهٔ",
        "book",
        "person",
        ("نویسندهٔ {e}، {v} است.", "{e} را {v} نوشته است.", "{e} نوشتهٔ {v} است."),
        ("نویسندهٔ {e} کیست؟", "{e} را چه کسی نوشته است؟", "{e} نوشتهٔ کیست؟"),
    ),
    "translator": Relation(
        "مترجم",
        "book",
        "person",
        ("مترجم {e}، {v} است.", "{v} {e} را ترجمه کرده است.", "ترجمهٔ {e} کار {v} است."),
        ("مترجم {e} کیست؟", "چه کسی {e} را ترجمه کرده است؟", "ترجمهٔ {e} کار کیست؟"),
    ),
    "published": Relation(
        "سال انتشار",
        "book",
        "year",
        ("{e} در سال {v} منتشر شد.", "سال انتشار {e}، {v} است.", "چاپ نخست {e} در سال {v} درآمد."),
        ("{e} در چه سالی منتشر شد؟", "سال انتشار {e} چیست؟", "چاپ نخست {e} در چه سالی درآمد؟"),
    ),
    "birthplace": Relation(
        "زادگاه",
        "person",
        "city",
        ("زادگاه {e}، {v} است.", "{e} در {v} زاده شد.", "{e} در شهر {v} به دنیا آمد."),
        ("زادگاه {e} کجاست؟", "{e} در کجا زاده شد؟", "{e} در کدام شهر به دنیا آمد؟"),
    ),
    "born": Relation(
        "سال تولد",
        "person",
        "year",
        ("سال تولد {e}، {v} است.", "{e} در سال {v} زاده شد.", "{e} به سال {v} چشم به جهان گشود."),
        ("سال تولد {e} چیست؟", "{e} در چه سالی زاده شد؟", "{e} در چه سالی چشم به جهان گشود؟"),
    ),
    "profession": Relation(
        "پیشهٔ",
        "person",
        "profession",
        ("پیشهٔ {e}، {v} بود.", "{e} سال‌ها {v} بود.", "شغل {e} را {v} نوشته‌اند."),
        ("پیشهٔ {e} چه بود؟", "شغل {e} چه بود؟", "{e} چه‌کاره بود؟"),
    ),
    "founder": Relation(
        "بنیان‌گذار",
        "library",
        "person",
        ("بنیان‌گذار {e}، {v} است.", "{e} را {v} بنیان گذاشت.", "{v} بنیان‌گذار {e} بود."),
        ("بنیان‌گذار {e} کیست؟", "چه کسی {e} را بنیان گذاشت؟", "نام بنیان‌گذار {e} چیست؟"),
    ),
    "opened": Relation(
        "سال گشایش",
        "library",
        "year",
        ("{e} در سال {v} گشایش یافت.", "سال گشایش {e}، {v} است.", "درهای {e} از سال {v} باز است."),
        ("{e} در چه سالی گشایش یافت؟", "سال گشایش {e} چیست؟", "درهای {e} از چه سالی باز است؟"),
    ),
    "volumes": Relation(
        "شمار کتاب‌های",
        "library",
        "volumes",
        ("{e} {v} کتاب دارد.", "در {e} {v} کتاب نگهداری می‌شود.", "شمار کتاب‌های {e}، {v} است."),
        (
            "{e} چند جلد کتاب دارد؟",
            "شمار کتاب‌های {e} چقدر است؟",
            "چند جلد کتاب در {e} نگهداری می‌شود؟",
        ),
    ),
    "architect": Relation(
        "معمار",
        "palace",
        "person",
        ("معمار {e}، {v} بود.", "{e} را {v} طراحی کرد.", "نقشهٔ {e} کار {v} است."),
        ("معمار {e} که بود؟", "{e} را چه کسی طراحی کرد؟", "نقشهٔ {e} کار کیست؟"),
    ),
    "built": Relation(
        "سال ساخت",
        "palace",
        "year",
        ("{e} در سال {v} ساخته شد.", "ساخت {e} در سال {v} به پایان رسید.", "سال ساخت {e}، {v} است."),
        ("{e} در چه سالی ساخته شد؟", "ساخت {e} در چه سالی به پایان رسید؟", "سال ساخت {e} چیست؟"),
    ),
    "coach": Relation(
        "سرمربی",
        "team",
        "person",
        ("سرمربی {e}، {v} است.", "{v} سرمربی {e} است.", "هدایت {e} را {v} بر عهده دارد."),
        ("سرمربی {e} کیست؟", "چه کسی سرمربی {e} است؟", "هدایت {e} بر عهدهٔ کیست؟"),
    ),
    "colour": Relation(
        "رنگ پیراهن",
        "team",
        "colour",
        ("پیراهن {e}، {v} است.", "رنگ پیراهن {e}، {v} است.", "بازیکنان {e} پیراهن {v} می‌پوشند."),
        ("پیراهن {e} چه رنگی است؟", "رنگ پیراهن {e} چیست؟", "بازیکنان {e} پیراهن چه رنگی می‌پوشند؟"),
    ),
}


class Fact(NamedTuple):
    """One (entity, relation, value), and where the value stands in the paragraph."""

    entity: str
    relation: str
    value: str
    start: int


class Paragraph(NamedTuple):
    text: str
    entities: tuple[tuple[str, str], ...]  # (name, kind) in order of appearance; the first is the title
    facts: tuple[Fact, ...]


def names(pool: str, part: str) -> list[str]:
    """The names of `pool` that belong to `part`: a quarter to validation, taken evenly from all parts of names."""
    joint, first, second = NAMES[pool]
    grid = product(range(len(first)), range(len(second)))
    return [first[a] + joint + second[b] for a, b in grid if ((a + b) % 4 == 0) == (part == "valid")]


POOLS = {part: {pool: names(pool, part) for pool in NAMES} for part in PARTS}
OF_KIND = {kind: [name for name, relation in RELATIONS.items() if relation.kind == kind] for kind in KINDS}
WORDY = [name for name, relation in RELATIONS.items() if relation.value in WORDS and relation.value != "lake"]
DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")


def paragraph(part: str, rng: random.Random, facts: int) -> Paragraph:
    """A paragraph that states about `facts` facts.

    Most are the same few relations of two or three entities of one kind, so that neither the entity nor the relation
    alone finds an answer.
    """
    kind = rng.choice(list(KINDS))
    namesakes = 1 if facts == 1 else rng.choice((2, 2, 3)) if facts > 2 else 2
    relations = rng.sample(OF_KIND[kind], min(len(OF_KIND[kind]), -(-facts // namesakes)))
    taken: set[str] = set()
    subjects = [(_draw(lambda: rng.choice(POOLS[part][kind]), taken), kind) for _ in range(namesakes)]
    possible = list(product(subjects, relations))
    if facts > 2 and rng.random() < 0.3:  # and something else
        other = rng.choice(list(KINDS))
        subjects.append((_draw(lambda: rng.choice(POOLS[part][other]), taken), other))
        possible.append((subjects[-1], rng.choice(OF_KIND[other])))
    stated = rng.sample(possible, min(facts, len(possible)))

    text, entities, found = "", [], []
    for name, kind in subjects:
        lines = [(relation, rng.choice(RELATIONS[relation].statements)) for (n, _), relation in stated if n == name]
        if rng.random() < 0.3:
            lines.append(("", rng.choice(KINDS[kind].remarks)))
        if lines:
            entities.append((name, kind))
        rng.shuffle(lines)
        for line, (relation, sentence) in enumerate(lines):
            value = _draw(lambda relation=relation: draw_value(relation, part, rng), taken) if relation else ""
            year = _draw(lambda: number("year", rng), taken) if "{y}" in sentence else ""
            before, _, after = sentence.replace("{y}", year).partition("{v}")
            entity = mention(name, kind, rng, pronoun=line > 0)
            text += " " if text else ""
            text += before.format(e=entity)
            if relation:
                found.append(Fact(name, relation, value, start=len(text)))
            text += value + after.format(e=entity)
    return Paragraph(text, tuple(entities), tuple(found))


def mention(name: str, kind: str, rng: random.Random, pronoun: bool) -> str:
    """The entity as a sentence names it: in full, by its name, or by a pronoun if the sentence before was about it."""
    if pronoun and rng.random() < 0.25:
        return KINDS[kind].pronoun
    return rng.choice((KINDS[kind].full, KINDS[kind].bare)).format(name)


def draw_value(relation: str, part: str, rng: random.Random) -> str:
    source = RELATIONS[relation].value
    if source in NUMBERS:
        return number(source, rng)
    return rng.choice(POOLS[part][source] if source in NAMES else WORDS[source])


def number(unit: str, rng: random.Random) -> str:
    low, high, step, after = NUMBERS[unit]
    return str(rng.randrange(low, high + 1, step)).translate(DIGITS) + after


def _draw(sample: Callable[[], str], taken: set[str]) -> str:
    """A sample that this paragraph has not used yet."""
    while (value := sample()) in taken:
        pass
    taken.add(value)
    return value


def ask(relation: str, name: str, rng: random.Random) -> str:
    kind = RELATIONS[relation].kind
    return rng.choice(RELATIONS[relation].questions).format(e=mention(name, kind, rng, pronoun=False))


def unanswered(paragraph: Paragraph, part: str, rng: random.Random) -> tuple[str, str]:
    """A (relation, name) that the paragraph leaves open although it states something much like it.

    Either a relation that it states of a namesake in kind, or another relation of an entity that it does speak
    about, or a stated relation of a name that does not occur.
    """
    stated = {(fact.relation, fact.entity) for fact in paragraph.facts}
    relations = {relation for relation, _ in stated}
    open_ = [(r, name) for name, kind in paragraph.entities for r in OF_KIND[kind] if (r, name) not in stated]
    near = [pair for pair in open_ if pair[0] in relations]
    present = {name for name, _ in paragraph.entities}
    fact = rng.choice(paragraph.facts)
    absent = [name for name in POOLS[part][RELATIONS[fact.relation].kind] if name not in present]
    choices = [pairs for pairs in (near, open_) if pairs]
    return rng.choice([rng.choice(pairs) for pairs in choices] + [(fact.relation, rng.choice(absent))])


def examples(part: str, count: int | None = None, seed: int = 0) -> list[Example]:
    """`count` questions, each on a paragraph of its own, one in four of them without an answer."""
    if part not in PARTS:
        raise DataError(f"no part {part!r} of the demo data, only {' and '.join(PARTS)}")
    count = QUESTIONS[part] if count is None else count
    rng = random.Random(f"{part} {seed}")
    result = []
    for index in range(count):
        if index % 4 == 0:
            silent = rng.randrange(4)  # which of these four has no answer
        passage = paragraph(part, rng, facts=rng.randint(3, 5))
        if index % 4 == silent:
            relation, name = unanswered(passage, part, rng)
            answers = ()
        else:
            fact = rng.choice(passage.facts)
            relation, name = fact.relation, fact.entity
            answers = (Answer(fact.value, fact.start),)
        result.append(
            Example(
                id=f"{part}-{seed}-{index}",
                title=passage.entities[0][0],
                question=ask(relation, name, rng),
                context=passage.text,
                answers=answers,
            )
        )
    return result


def pretraining_text(part: str = "train", count: int | None = None, seed: int = 0) -> Iterator[str]:
    """Lines of two texts with a tab between them. What one says the other says again, so that a word hidden in one of
    them can be looked up in the other, and masked language modelling teaches to look up.

    They go from plain to hard and are to be read in this order: names and values listed twice, the values of one word
    at first; facts listed twice; an infobox and its paragraph; at last questions with answers, and the paragraph they
    are about. A model that begins with paragraphs learns the phrases and never comes to look anything up.
    """
    count = PRETRAINING[part] if count is None else count
    rng = random.Random(f"pretraining {part} {seed}")
    for index in range(count):
        progress = index / count
        if progress < 0.175:
            first, second = listing(part, rng, WORDY, longest=3)
        elif progress < 0.25:
            first, second = listing(part, rng, list(RELATIONS), longest=5)
        elif progress < 0.4:
            first, second = fact_listing(part, rng)
        elif progress < 0.65 or rng.random() < 0.3:
            first, second = infobox(part, rng)
        else:
            first, second = answered(part, rng)
        yield f"{first}\t{second}"


def listing(part: str, rng: random.Random, relations: list[str], longest: int) -> tuple[str, str]:
    """Names with a value of one sort each, in two orders: "تپه‌نو: پسته، باغ‌انار: گز.". Only the name tells which."""
    taken: set[str] = set()
    relation = rng.choice(relations)
    pool = POOLS[part][RELATIONS[relation].kind]
    pairs = []
    for _ in range(rng.randint(2, longest)):
        name = _draw(lambda: rng.choice(pool), taken)
        pairs.append(f"{name}: {_draw(lambda: draw_value(relation, part, rng), taken)}")
    return join(pairs), join(rng.sample(pairs, len(pairs)))


def fact_listing(part: str, rng: random.Random) -> tuple[str, str]:
    """The facts of a paragraph in two orders: "پایتخت نیکستان شمالی: باغ‌انار، رنگ پیراهن شاهین ساحل: سرخ."."""
    lines = fact_lines(paragraph(part, rng, facts=rng.randint(2, 5)), rng)
    return join(lines), join(rng.sample(lines, len(lines)))


def infobox(part: str, rng: random.Random) -> tuple[str, str]:
    """The facts of a paragraph, and the paragraph."""
    passage = paragraph(part, rng, facts=rng.randint(1, 5))
    return join(fact_lines(passage, rng)), passage.text


def fact_lines(passage: Paragraph, rng: random.Random) -> list[str]:
    lines = [f"{RELATIONS[fact.relation].label} {fact.entity}: {fact.value}" for fact in passage.facts]
    return rng.sample(lines, len(lines))


def join(lines: list[str]) -> str:
    return "، ".join(lines) + "."


def answered(part: str, rng: random.Random) -> tuple[str, str]:
    """One or two questions with their answers, and the paragraph that they are about."""
    passage = paragraph(part, rng, facts=rng.randint(1, 5))
    lines = []
    for fact in rng.sample(passage.facts, min(rng.randint(1, 2), len(passage.facts))):
        if rng.random() < 0.25:
            relation, name = unanswered(passage, part, rng)
            lines.append(f"{ask(relation, name, rng)} {NO_ANSWER}.")
        else:
            lines.append(f"{ask(fact.relation, fact.entity, rng)} {fact.value}.")
    return " ".join(lines), passage.text


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m qa.demo", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another data set (default 0)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        write(arguments.out / f"{part}.json", examples(part, seed=arguments.seed))
    write_text(arguments.out / "pretrain.txt", "".join(f"{line}\n" for line in pretraining_text(seed=arguments.seed)))


if __name__ == "__main__":
    main()
