"""The dashboards under deploy/grafana, held against what Grafana itself says of them: no Grafana is needed, and none is started.

Method: the compiler of TypeScript checks each file against the types that Grafana publishes for the version of docker-compose.yml, its
panels by their kinds; a field that is misspelt, or of a wrong kind, is an error. What types cannot say is asked here. The expressions are
asked of a real Prometheus by stack_test.py. MILLSTREAM_NODE_PACKAGES names the folder where `run` has installed package.json; without it
the first is skipped and says so.
"""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
OPTIONS = ("--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler")
# How many columns a dashboard has.
WIDTH = 24

# What a file is checked with. Files name the values of enumerations, types their members: `Plain` makes the two meet.
TYPES = """
import type { Dashboard, FieldConfigSource, Panel, RowPanel, VariableModel } from '@grafana/schema';
import type * as stat from '../node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '../node_modules/@grafana/schema/dist/types/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as series from '../node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

type Plain<T> =
  T extends string ? `${T}` :
  T extends number ? (`${T}` extends `${infer N extends number}` ? N : T) :
  T extends ReadonlyArray<infer Item> ? Array<Plain<Item>> :
  T extends object ? { [Key in keyof T]: Plain<T[Key]> } : T;
type Parts<T> = T extends ReadonlyArray<unknown> ? T : T extends object ? { [Key in keyof T]?: Parts<T[Key]> } : T;

interface Query {
  refId: string;
  datasource: { type: 'prometheus'; uid: string };
  expr: string;
  legendFormat: string;
  instant?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
}
type Of<Kind extends string, Options, Custom> = Omit<Panel, 'type' | 'id' | 'title' | 'options' | 'fieldConfig' | 'targets' | 'gridPos'> & {
  type: Kind;
  id: number;
  title: string;
  gridPos: { x: number; y: number; w: number; h: number };
  options: Parts<Options>;
  fieldConfig: FieldConfigSource<Parts<Custom>>;
  targets: Query[];
};
type Row = Omit<RowPanel, 'type'> & { type: 'row' };
type Shown = Row | Of<'stat', stat.Options, never> | Of<'table', table.Options, table.FieldConfig> | Of<'timeseries', series.Options, series.FieldConfig>;
// What a variable shows as its definition is nobody's schema, but every Grafana writes it.
type Variable = VariableModel & { definition?: string };

export type Board = Plain<Omit<Dashboard, 'panels' | 'templating'> & {
  uid: string;
  title: string;
  schemaVersion: number;
  panels: Shown[];
  templating: { list: Variable[] };
}>;
"""


def compiler():
    """The folder that holds the compiler and Grafana's types; nothing where they could not be installed."""
    named = os.environ.get("MILLSTREAM_NODE_PACKAGES")
    return pathlib.Path(named) if named else None


def compiled(folder, boards):
    """Whether these texts are dashboards, and what the compiler complained of."""
    # Beside the packages, where the compiler looks for them.
    with tempfile.TemporaryDirectory(dir=folder) as work:
        work = pathlib.Path(work)
        (work / "types.ts").write_text(TYPES)
        for name, text in boards.items():
            (work / f"{name}.ts").write_text(f"import type {{ Board }} from './types';\nexport const board: Board = {text};\n")
        command = ["node", folder / "node_modules/typescript/bin/tsc", *OPTIONS, *(f"{name}.ts" for name in boards)]
        done = subprocess.run(command, cwd=work, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode == 0, done.stdout


class Boards(unittest.TestCase):
    """What must hold for each of them."""

    def setUp(self):
        self.boards = {path.stem: json.loads(path.read_text()) for path in BOARDS}
        self.assertGreaterEqual(len(self.boards), 2)

    def test_1_grafana_s_own_types_take_them_and_refuse_what_is_misspelt(self):
        folder = compiler()
        if folder is None:
            self.skipTest("MILLSTREAM_NODE_PACKAGES names no folder: the dashboards are NOT CHECKED against Grafana's types")
        image = re.search(r"grafana/grafana:([0-9.]+)", (ROOT / "docker-compose.yml").read_text()).group(1)
        wanted = json.loads((ROOT / "tests/compose/package.json").read_text())["dependencies"]
        self.assertEqual(wanted["@grafana/schema"], image)
        texts = {path.stem: path.read_text() for path in BOARDS}
        went_well, said = compiled(folder, texts)
        self.assertTrue(went_well, said)
        right, wrong = texts["job"], {}
        for old, new in (("legendFormat", "legendFormt"), ('"mode": "absolute"', '"mode": "absolut"'), ('"type": "stat"', '"type": "stats"'),
                         ('"displayMode": "list"', '"displayMode": "lists"'), ('"showPoints": "never"', '"showPoints": "nevr"')):
            self.assertIn(old, right)
            wrong[f"wrong{len(wrong)}"] = right.replace(old, new, 1)
        _, said = compiled(folder, wrong)
        self.assertEqual([name for name in wrong if f"{name}.ts(" not in said], [], "a mistake passes")

    def test_2_every_panel_has_a_place_and_a_number_of_its_own(self):
        self.assertEqual(len({board["uid"] for board in self.boards.values()}), len(self.boards))
        for name, board in self.boards.items():
            numbers = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(set(numbers)), len(numbers), name)
            taken = {}
            for panel in board["panels"]:
                place = panel["gridPos"]
                self.assertLessEqual(place["x"] + place["w"], WIDTH, panel["title"])
                for x in range(place["x"], place["x"] + place["w"]):
                    for y in range(place["y"], place["y"] + place["h"]):
                        self.assertNotIn((x, y), taken, f"{name}: {panel['title']} lies on {taken.get((x, y))}")
                        taken[x, y] = panel["title"]

    def test_3_every_query_asks_the_data_source_that_is_provisioned(self):
        provisioned = (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()
        uid = re.search(r"^ *uid: (\S+)$", provisioned, re.MULTILINE).group(1)
        wanted = {"type": "prometheus", "uid": uid}
        for board in self.boards.values():
            for panel in board["panels"]:
                if panel["type"] == "row":
                    continue
                self.assertEqual(panel["datasource"], wanted, panel["title"])
                references = [target["refId"] for target in panel["targets"]]
                self.assertEqual(len(set(references)), len(references), panel["title"])
                for target in panel["targets"]:
                    self.assertEqual(target["datasource"], wanted, panel["title"])
            for variable in board["templating"]["list"]:
                self.assertEqual(variable["datasource"], wanted, variable["name"])

    def test_4_links_lead_to_dashboards_that_are_there(self):
        known = {f"/d/{board['uid']}" for board in self.boards.values()}
        for board in self.boards.values():
            for link in board["links"]:
                self.assertIn(link["url"].split("?")[0], known)


if __name__ == "__main__":
    unittest.main(verbosity=2)
