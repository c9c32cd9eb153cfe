"""Readers of questions: VQAv2's official files and tables such as DAQUAR's."""

from __future__ import annotations

from pathlib import Path

from ...errors import UserError
from ...paths import inside_data
from ..images import choose_pattern, fill
from ..manifest import Manifest
from ..records import Contents, Question, Split
from .cells import text_of
from .layouts import QuestionTable, Vqa, VqaFiles
from .text_tables import read_json_text, read_text_table


def read_vqa(root: Path, layout: Vqa, manifest: Manifest) -> Contents:
    """Read the splits whose question file is there; without annotations the answers are empty."""
    return Contents(
        questions={
            split: _vqa_split(root, files)
            for split, files in layout.splits.items()
            if (root / files.questions).is_file()
        }
    )


def _vqa_split(root: Path, files: VqaFiles) -> list[Question]:
    answers: dict[int, dict] = {}
    try:
        if files.annotations:
            rows = read_json_text(root / files.annotations)["annotations"]
            answers = {row["question_id"]: row for row in rows}
        questions = read_json_text(root / files.questions)["questions"]
        names = {row["image_id"]: f"{row['image_id']:012d}.jpg" for row in questions}
        pattern = choose_pattern(
            root, files.images, [(n, None, {}) for n in list(names.values())[:1]]
        )
        paths = {number: inside_data(root, fill(pattern, name)) for number, name in names.items()}
        found = []
        for row in questions:
            answer = answers.get(row["question_id"], {})
            if files.annotations and not answer:
                raise UserError(
                    f"{root / files.annotations} lacks question {row['question_id']} of"
                    f" {root / files.questions}."
                )
            found.append(
                Question(
                    str(row["question_id"]),
                    str(row["image_id"]),
                    paths[row["image_id"]],
                    text_of(row["question"]),
                    tuple(str(given["answer"]) for given in answer.get("answers", ())),
                    answer.get("question_type", ""),
                    answer.get("answer_type", ""),
                )
            )
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{root / files.questions} is not a question file of VQAv2.") from error
    return found


def read_question_table(root: Path, layout: QuestionTable, manifest: Manifest) -> Contents:
    """Read DAQUAR's tables. An answer of several things, with commas between, is one answer."""
    questions: dict[Split, list[Question]] = {}
    for split, file in layout.files.items():
        try:
            rows = read_text_table(root / file).rows
            first = [(f"{row['image_id']}.png", None, {}) for row in rows[:1]]
            pattern = choose_pattern(root, layout.images, first)
            questions[split] = [
                Question(
                    f"{split}/{number}",
                    row["image_id"],
                    inside_data(root, fill(pattern, f"{row['image_id']}.png")),
                    row["question"].strip(),
                    (row["answer"].strip(),),
                    " ".join(row["question"].split()[:2]),
                )
                for number, row in enumerate(rows)
            ]
        except (KeyError, AttributeError) as error:
            raise UserError(
                f"{root / file} is not a table with image_id, question and answer."
            ) from error
    return Contents(questions=questions)
