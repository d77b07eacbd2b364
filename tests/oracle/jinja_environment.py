"""Python's jinja2 as transformers sets it up for chat templates, with a clock that stands still."""
import copy
import datetime
import warnings

from transformers.utils import chat_template_utils

CLOCK = datetime.datetime(2024, 7, 26, 8, 3, 9)


class _StoppedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return CLOCK


chat_template_utils.datetime = _StoppedClock
warnings.simplefilter("ignore")


def render(template, context, mark=False):
    """{"text": ...} (and "spans", in bytes of UTF-8) or {"error": ...}."""
    context = copy.deepcopy(context)  # some filters change lists before they fail
    try:
        compiled = chat_template_utils._compile_jinja_template.__wrapped__(template)
        if not mark:
            text = compiled.render(**context)
            spans = []
        else:
            blocks, spans = [], []
            with compiled.environment.activate_tracker(blocks, spans):
                for block in compiled.generate(**context):
                    blocks.append(block)
            text = "".join(blocks)
        text.encode("utf-8")
    except RecursionError as error:
        return {"error": f"RecursionError: {error}"}
    except Exception as error:  # whatever the template makes Python raise
        return {"error": f"{type(error).__name__}: {error}"}
    answer = {"text": text}
    if mark:
        answer["spans"] = [[len(text[:a].encode()), len(text[:b].encode())] for a, b in spans]
    return answer
