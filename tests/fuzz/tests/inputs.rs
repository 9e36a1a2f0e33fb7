//! Goal: what the fuzzer begins with, and whatever it found, breaks no rule of its target. Method: each file of `inputs` is fed.

use std::path::Path;

use millstream_fuzz::Target;

#[test]
fn no_kept_input_breaks_a_rule_of_its_target() {
    for target in Target::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("inputs")
            .join(target.name());
        let files = std::fs::read_dir(&folder).expect("a folder of inputs");
        let mut count = 0;
        for file in files {
            let path = file.expect("a file").path();
            println!("{}", path.display());
            target.feed(&std::fs::read(&path).expect("an input"));
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}
