"""The rule of traces.py: which traces are whole, and what is said of one that is not. No collector is needed."""

import unittest

from traces import Span, epoch_lacks, gaps, root


def span(name, parent=None, links=(), **attributes):
    """A span as the collector tells it; its name is its id too."""
    references = [{"refType": "CHILD_OF", "traceID": "t", "spanID": parent}] if parent else []
    references += [{"refType": "FOLLOWS_FROM", "traceID": trace, "spanID": "s"} for trace in links]
    tags = [{"key": key, "value": value} for key, value in attributes.items()]
    told = {"spanID": name, "operationName": name, "startTime": 1, "tags": tags, "references": references}
    return Span(told, {"tags": [{"key": "service.instance.id", "value": "one"}]})


class Whole(unittest.TestCase):
    """One root, every parent, nothing twice."""

    def test_a_root_and_its_steps_are_whole_also_where_the_root_is_told_again(self):
        steps = [span("epoch"), span("consume", "epoch"), span("deliver", "epoch")]
        self.assertEqual(gaps(steps), [])
        again = span("epoch", told_again="by the next master")
        self.assertEqual(gaps([again, *steps]), [])
        # The master that was killed had not told it.
        self.assertEqual(gaps([again, again, *steps[1:]]), [])
        self.assertEqual(root([again, *steps[1:]]).name, "epoch")

    def test_what_is_not_whole_is_named(self):
        step = span("consume", "epoch")
        self.assertEqual(gaps([step]), ["it has not one root: []", "the parent of consume is missing"])
        self.assertIsNone(root([step]))
        self.assertEqual(gaps([span("epoch"), span("recovery"), step]), ["it has not one root: ['epoch', 'recovery']"])
        self.assertEqual(gaps([span("epoch"), step, step]), ["a span is there twice"])
        self.assertIn("a span is there twice", gaps([span("epoch"), span("epoch"), step]))

    def test_links_are_no_parents(self):
        first = span("first_epoch", "recovery", links=("other",))
        self.assertEqual((first.parents, first.linked), (["recovery"], ["other"]))

    def test_an_epoch_without_a_row_or_a_sink_of_it_lacks_that(self):
        whose = {"job": "j", "generation": 1, "epoch": 2, "bytes": 9}
        read = {**whose, "splits": 1}
        def epoch(decoded):
            return [span("epoch", rows=5, **read), span("consume", "epoch", rows=5, **read), span("decode", "epoch", rows=decoded, **whose),
                    span("deliver", "epoch", rows=5, sink="s", **whose)]
        self.assertEqual(epoch_lacks(epoch(5), {"s"}), [])
        self.assertEqual(epoch_lacks(epoch(4), {"s"}), ["decode of 4 rows, and not of the 5 of the epoch"])
        self.assertEqual(epoch_lacks(epoch(5), {"s", "other"})[0][:13], "delivered to ")
        self.assertEqual(epoch_lacks([*epoch(5), span("ship", "epoch", rows=5, job="j", generation=1, epoch=2)], {"s"}), ["ship tells no bytes"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
