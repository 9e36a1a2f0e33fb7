"""Spans as the collector tells them, and whether a trace is whole: the rule of tests/src/collector.rs, held against a public collector.

Nothing here asks the collector: stack.py does.
"""

# Of a root that a master tells because it cannot know whether the one before it has.
AGAIN = "told_again"
# What the spans of an epoch tell beside whose it is, where it is not rows and bytes.
FIGURES = {"epoch": {"rows", "bytes", "splits"}, "consume": {"rows", "bytes", "splits"}, "collect": set()}


class Span:
    """A span as the collector tells it."""

    def __init__(self, span, process):
        self.id, self.name, self.begun_us = span["spanID"], span["operationName"], span["startTime"]
        self.attributes = {tag["key"]: tag["value"] for tag in span["tags"]}
        self.parents = [reference["spanID"] for reference in span["references"] if reference["refType"] == "CHILD_OF"]
        self.linked = [reference["traceID"] for reference in span["references"] if reference["refType"] != "CHILD_OF"]
        self.instance = next((tag["value"] for tag in process["tags"] if tag["key"] == "service.instance.id"), "")


def rows(spans, step):
    """The rows that a step of an epoch tells, of all tasks together."""
    return sum(int(span.attributes.get("rows", 0)) for span in spans if span.name == step)


def told_once(spans):
    """The spans without the roots that are told again and are there already."""
    once = [span for span in spans if AGAIN not in span.attributes]
    for span in spans:
        if AGAIN in span.attributes and span.id not in {known.id for known in once}:
            once.append(span)
    return once


def root(spans):
    """The root of a trace; nothing where it has none."""
    return next((span for span in told_once(spans) if not span.parents), None)


def gaps(spans):
    """What keeps a trace from being whole, in words: it has one root, every other span has its parent, and none is there twice."""
    spans = told_once(spans)
    known = {span.id for span in spans}
    roots = [span.name for span in spans if not span.parents]
    found = [] if len(roots) == 1 else [f"it has not one root: {roots}"]
    if len(known) < len(spans):
        found.append("a span is there twice")
    found += [f"the parent of {span.name} is missing" for span in spans if not known.issuperset(span.parents)]
    found += [f"{span.name} began at no time" for span in spans if span.begun_us <= 0]
    return found


def untold(spans, names):
    """What spans do not tell of these, in words."""
    return [f"{span.name} tells no {name}" for span in spans for name in sorted(names - span.attributes.keys())]


def epoch_lacks(spans, sinks):
    """What the trace of an epoch with rows lacks, in words: what its spans tell, a row that was read, a sink."""
    lack = untold(spans, {"job", "generation", "epoch"})
    for span in spans:
        lack += untold([span], FIGURES.get(span.name, {"rows", "bytes"}))
    for step in ("consume", "decode"):
        if rows(spans, step) != rows(spans, "epoch"):
            lack.append(f"{step} of {rows(spans, step)} rows, and not of the {rows(spans, 'epoch')} of the epoch")
    delivered = {span.attributes.get("sink") for span in spans if span.name == "deliver"}
    return lack if delivered == sinks else [*lack, f"delivered to {delivered}, and not to {sinks}"]
