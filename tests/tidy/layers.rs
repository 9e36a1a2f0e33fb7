//! Who may use what: dependencies point one way, clients and wire types stay in their places, and the tree shows the path of a row.

use std::collections::BTreeSet;

use crate::source::{Source, assert_finds, assert_holds, code, root};

/// The path of a row: the folders of the worker, which sort in this order.
const PATH: &[&str] = &[
    "consume", "decode", "exchange", "operator", "ship", "snapshot",
];

/// A crate that only some files may name, and where.
const USES: &[(&str, &[&str])] = &[
    (
        "rdkafka",
        &[
            "master/src/enumerate/",
            "master/src/probe/",
            "worker/src/consume/kafka/",
            "sinks/src/kafka/",
            "sinks/tests/",
            "cli/src/demo/",
            "cli/src/logs.rs",
            "tests/",
        ],
    ),
    (
        "tokio_postgres",
        &[
            "sinks/src/postgres/",
            "sinks/tests/",
            "master/src/probe/",
            "tests/",
        ],
    ),
    ("sqlparser", &["master/src/plan/", "tests/tidy/"]),
    ("object_store", &["common/src/store/", "tests/"]),
    ("csv_core", &["worker/src/decode/csv/"]),
    (
        "millstream_proto",
        &[
            "proto/",
            "common/src/client/",
            "common/src/grpc/",
            "common/src/link/",
            "master/src/service/",
            "master/src/cluster/link.rs",
            "worker/src/link.rs",
            "cli/src/run/tests.rs",
            "worker/tests/link/main.rs",
            "tests/",
        ],
    ),
    ("millstream_master", &["master/", "cli/", "tests/"]),
    ("millstream_worker", &["worker/", "cli/", "tests/"]),
    (
        "millstream_sinks",
        &["sinks/", "worker/", "master/src/probe/", "tests/"],
    ),
];

/// The crates of the workspace that each manifest may name.
const MANIFESTS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("common", &["millstream-proto"]),
    (
        "master",
        &["millstream-common", "millstream-proto", "millstream-sinks"],
    ),
    ("sinks", &["millstream-common"]),
    (
        "worker",
        &["millstream-common", "millstream-proto", "millstream-sinks"],
    ),
    (
        "cli",
        &[
            "millstream-common",
            "millstream-master",
            "millstream-proto",
            "millstream-worker",
        ],
    ),
];

/// The crate is named by path or by `use`; a word inside a string does not count.
fn uses(file: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (name, places) in USES {
        if places.iter().any(|place| file.path.starts_with(place)) {
            continue;
        }
        let path = format!("{name}::");
        for (index, line) in file.text.lines().enumerate() {
            let code = code(line);
            if code
                .match_indices(&path)
                .any(|(start, _)| is_path_start(&code[..start]))
            {
                let what = format!("{name} is used only in {}", places.join(", "));
                found.push(file.says(index + 1, &what));
            }
        }
    }
    found
}

/// A name that begins here is a crate's or a module's, not the end of a longer one.
fn is_path_start(before: &str) -> bool {
    !before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == '"')
}

/// A manifest names no crate of the workspace that it may not depend on.
fn dependencies(member: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = MANIFESTS.iter().find(|(name, _)| *name == member) else {
        return Vec::new();
    };
    let names = manifest
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next());
    let ours: BTreeSet<&str> = names
        .filter(|name| name.starts_with("millstream-"))
        .collect();
    let wrong = ours.into_iter().filter(|name| !allowed.contains(name));
    wrong
        .map(|name| format!("{member} must not depend on {name}"))
        .collect()
}

/// `lib.rs` declares the path's folders, in their order.
fn path_order(lib: &str) -> Vec<String> {
    let declared: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|module| PATH.contains(module))
        .collect();
    match declared == PATH {
        true => Vec::new(),
        false => vec![format!(
            "the path is {PATH:?}, but lib.rs declares {declared:?}"
        )],
    }
}

#[test]
fn dependencies_point_one_way() {
    for (member, _) in MANIFESTS {
        let manifest = root().join(member).join("Cargo.toml");
        let manifest = std::fs::read_to_string(manifest).expect("a manifest");
        assert_eq!(dependencies(member, &manifest), Vec::<String>::new());
    }
    let wrong = dependencies(
        "master",
        "[dependencies]\nmillstream-worker.workspace = true\n",
    );
    assert_eq!(wrong, ["master must not depend on millstream-worker"]);
    let wrong = dependencies("sinks", "millstream-worker = { workspace = true }\n");
    assert_eq!(wrong, ["sinks must not depend on millstream-worker"]);
}

#[test]
fn clients_and_wire_types_stay_in_their_places() {
    assert_holds(uses);
    let kafka = "//! rdkafka::x\nuse rdkafka::ClientConfig;\n";
    assert_finds(uses, "master/src/job/x.rs", kafka, &[2]);
    assert_finds(uses, "worker/src/consume/kafka/x.rs", kafka, &[]);
    let planner = "use datafusion::sql::sqlparser::ast::Expr;\n";
    assert_finds(uses, "worker/src/decode/x.rs", planner, &[1]);
    assert_finds(uses, "master/src/plan/x.rs", planner, &[]);
    let wire = "fn x(frame: millstream_proto::v1::Hello) {}\n";
    assert_finds(uses, "worker/src/pipeline/x.rs", wire, &[1]);
    assert_finds(uses, "worker/src/link.rs", wire, &[]);
    assert_finds(
        uses,
        "sinks/src/x.rs",
        "use millstream_worker::ship;\n",
        &[1],
    );
    assert_finds(uses, "sinks/src/x.rs", "use my_rdkafka::x;\n", &[]);
}

#[test]
fn the_tree_shows_the_path_of_a_row() {
    let source = root().join("worker/src");
    for stage in PATH {
        assert!(source.join(stage).is_dir(), "worker/src/{stage} is missing");
    }
    assert!(
        PATH.is_sorted(),
        "folders sort by name, and so must the path"
    );
    let lib = std::fs::read_to_string(source.join("lib.rs")).expect("the worker's lib.rs");
    assert_eq!(path_order(&lib), Vec::<String>::new());
    assert_eq!(path_order("pub mod decode;\npub mod consume;\n").len(), 1);
}
