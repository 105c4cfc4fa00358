//! The program against what is written about it: flags, JSON keys and codes against the manual, the README
//! against the binary, the policy examples against the parser.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use vouchd::diagnostic::Code;
use vouchd::policy::Policy;

use crate::support;

const DEMO: &str = "policy-examples/demo";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs the program in the root of the repository, with no user's files but those of the root.
fn vouchd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vouchd"))
        .args(arguments)
        .current_dir(root())
        .env_clear()
        .env("HOME", "/nonexistent")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A set of names, for messages that show what is missing on which side.
fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

pub(crate) mod manual {
    use super::*;

    /// An entry of a page: `.TP` and the tag below it, without the marks of roff.
    struct Entry {
        subsection: String,
        tag: String,
    }

    /// Removes the marks of roff from the text of a line.
    fn plain(line: &str) -> String {
        let words = match line.strip_prefix('.') {
            Some(request) => request.split_once(' ').map(|(_, words)| words).unwrap_or_default(),
            None => line,
        };
        let mut plain = words.replace("\\-", "-").replace(['"'], "");
        for font in ["\\fB", "\\fI", "\\fR", "\\fP"] {
            plain = plain.replace(font, "");
        }
        plain
    }

    fn entries(page: &str) -> Vec<Entry> {
        let mut subsection = String::new();
        let mut entries = Vec::new();
        let page = read(page);
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            match line.split(' ').next().unwrap() {
                ".SH" => subsection = String::new(),
                ".SS" => subsection = plain(line),
                ".TP" => {
                    let subsection = subsection.clone();
                    entries.push(Entry { subsection, tag: plain(lines.next().unwrap()) });
                }
                _ => {}
            }
        }
        entries
    }

    /// The flags in the tags of the entries that `wanted` selects.
    fn flags(entries: &[Entry], wanted: impl Fn(&Entry) -> bool) -> BTreeSet<String> {
        let words =
            entries.iter().filter(|entry| wanted(entry)).flat_map(|entry| entry.tag.split([' ', ',']));
        set(words.filter(|word| word.starts_with('-')))
    }

    /// The flags that the program has, as they are typed.
    fn flags_of(command: &clap::Command) -> BTreeSet<String> {
        let arguments = command.get_arguments();
        let typed = arguments.flat_map(|argument| {
            let long = argument.get_long().map(|long| format!("--{long}"));
            let short = argument.get_short().map(|short| format!("-{short}"));
            [long, short].into_iter().flatten()
        });
        typed.collect()
    }

    /// The commands that do something, by all their names.
    fn leaves(command: &clap::Command) -> Vec<(String, &clap::Command)> {
        let mut all = Vec::new();
        for sub in command.get_subcommands() {
            let name = sub.get_name().to_owned();
            let below = leaves(sub).into_iter().filter(|(below, _)| name != "help" && below != "help");
            let below: Vec<_> = below.map(|(below, sub)| (format!("{name} {below}"), sub)).collect();
            if below.is_empty() { all.push((name, sub)) } else { all.extend(below) }
        }
        all
    }

    #[test]
    fn every_flag_stands_in_the_manual_and_no_other() {
        const POLICY: &str = "Options for the policy";
        const SIGNATURES: &str = "Options for signatures";
        const REGISTRIES: &str = "Options for registries";
        const COMMON: &str = "Options of every command";
        let entries = entries("man/vouchd.1");
        let mut command = vouchd::cli::command();
        command.build();
        let mut common = flags(&entries, |entry| entry.subsection == COMMON);
        assert_eq!(common, flags_of(&command), "vouchd");
        common.retain(|flag| flag.ends_with("help") || flag == "-h");
        let mut known = BTreeSet::from([POLICY, SIGNATURES, REGISTRIES, COMMON].map(str::to_owned));
        for (name, sub) in leaves(&command).into_iter().filter(|(name, _)| name != "help") {
            let title = format!("vouchd {name} ");
            let own = |entry: &Entry| entry.subsection.starts_with(&title);
            assert!(read("man/vouchd.1").replace("\\-", "-").contains(&title), "{title}has no section");
            let signatures =
                !["reload", "verify-blob"].contains(&name.as_str()) && !name.starts_with("trust ");
            let policy = signatures && !["inspect", "policy-lint", "simulate"].contains(&name.as_str());
            let registries = signatures && !["explain", "policy-lint", "status"].contains(&name.as_str());
            let mut written = flags(&entries, |entry| {
                own(entry)
                    || policy && entry.subsection == POLICY
                    || signatures && entry.subsection == SIGNATURES
                    || registries && entry.subsection == REGISTRIES
            });
            written.extend(common.clone());
            assert_eq!(written, flags_of(sub), "{title}");
            known.extend(entries.iter().filter(|entry| own(entry)).map(|entry| entry.subsection.clone()));
        }
        let stray = flags(&entries, |entry| !known.contains(&entry.subsection));
        assert_eq!(stray, BTreeSet::new());
    }

    #[test]
    fn the_pages_are_sound() {
        for (program, arguments) in
            [("man", &["--warnings", "-l"][..]), ("mandoc", &["-T", "lint", "-W", "warning"])]
        {
            if !support::have(&[program]) {
                continue;
            }
            for page in ["man/vouchd.1", "man/vouchd.toml.5", "man/vouchd-codes.7"] {
                let output = Command::new(program)
                    .args(arguments)
                    .arg(root().join(page))
                    .envs([("LC_ALL", "C.UTF-8"), ("MANWIDTH", "80")])
                    .output()
                    .unwrap();
                let lint = if program == "mandoc" { stdout(&output) } else { String::new() };
                let complaints = lint + &String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && complaints.is_empty(), "{program}: {complaints}");
            }
        }
    }

    #[test]
    fn every_command_stands_in_the_synopsis() {
        let page = read("man/vouchd.1");
        let synopsis = page.split(".SH SYNOPSIS").nth(1).unwrap().split(".SH").next().unwrap();
        let mut command = vouchd::cli::command();
        command.build();
        let synopsis = synopsis.replace("\\-", "-");
        let written = synopsis.lines().filter_map(|line| line.strip_prefix(".B vouchd "));
        assert_eq!(set(written), set(leaves(&command).iter().map(|(name, _)| name.as_str())));
    }

    /// The flags that running text, examples and other pages mention.
    #[test]
    fn every_flag_that_is_mentioned_exists() {
        let mut command = vouchd::cli::command();
        command.build();
        let mut known = flags_of(&command);
        known.extend(command.get_subcommands().flat_map(flags_of));
        for page in ["man/vouchd.1", "man/vouchd.toml.5", "man/vouchd-codes.7"] {
            let text = read(page).replace("\\-", "-");
            let mentioned = text.split("--").skip(1).zip(text.split("--"));
            for (after, before) in mentioned {
                let flag: String =
                    after.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                let begins = before.is_empty() || before.ends_with([' ', '\n', '"', 'B', 'I', 'R', 'q']);
                if begins && !flag.is_empty() {
                    assert!(known.contains(&format!("--{flag}")), "{page}: --{flag}");
                }
            }
        }
    }

    #[test]
    fn the_codes_are_those_of_the_program() {
        let entries = entries("man/vouchd-codes.7");
        let written: Vec<&str> = entries.iter().map(|entry| entry.tag.as_str()).collect();
        assert_eq!(set(written.iter().copied()).len(), written.len(), "a code stands there twice");
        assert_eq!(set(written), set(Code::ALL.iter().map(|code| code.as_str())));
    }

    #[test]
    fn every_code_has_a_cause_and_a_fix() {
        let page = read("man/vouchd-codes.7");
        for entry in page.split("\n.TP\n").skip(1) {
            let entry = entry.split("\n.SH ").next().unwrap();
            let parts: Vec<&str> = entry.split("\n.br\n").collect();
            assert_eq!(parts.len(), 3, "{entry}");
            assert!(parts[1].starts_with(".I Cause:\n"), "{entry}");
            assert!(parts[2].starts_with(".I Fix:\n"), "{entry}");
        }
    }

    /// The keys that a subsection of vouchd(1) describes.
    pub(crate) fn keys_of(subsection: &str) -> BTreeSet<String> {
        let entries = entries("man/vouchd.1");
        let written = entries.iter().filter(|entry| entry.subsection == subsection);
        set(written.map(|entry| entry.tag.as_str()))
    }

    pub(crate) fn collect_keys(value: &Value, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    keys.insert(key.clone());
                    collect_keys(value, keys);
                }
            }
            Value::Array(elements) => elements.iter().for_each(|element| collect_keys(element, keys)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn the_keys_of_json_are_those_of_the_program() {
        let policy = format!("{DEMO}/policy.json");
        let images = ["signed", "tampered", "unsigned"].map(|image| format!("dir:{DEMO}/{image}"));
        let image = images[0].as_str();
        let stores = format!("{DEMO}/keys");
        let images_list = format!("{DEMO}/images.txt");
        let registry = "docker://registry.example/demo/hello:1";
        let nowhere = "unix:path=/no/such/bus";
        let directory = tempfile::tempdir().unwrap();
        let bad = directory.path().join("policy.json");
        fs::write(&bad, r#"{"default":[{"type":"rejekt"}]}"#).unwrap();
        let open = directory.path().join("open.json");
        fs::write(&open, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
        let twice = directory.path().join("twice.json");
        fs::write(&twice, r#"{"default":[{"type":"reject"},{"type":"reject"}]}"#).unwrap();
        let (bad, open) = (bad.display().to_string(), open.display().to_string());
        let twice = twice.display().to_string();
        let missing = directory.path().join("missing").display().to_string();
        let status = |policy, stores| {
            vec!["status", "--json", "--bus-address", nowhere, "--policy", policy, "--registries-d", stores]
        };
        for (subsection, runs) in [
            ("Keys of status --json", vec![status(&open, &stores), status(&bad, &missing)]),
            (
                "Keys of verify --json",
                vec![vec![
                    "verify", "--json", "--policy", &policy, image, &images[1], &images[2], "no-image",
                ]],
            ),
            ("Keys of trust show --json", vec![vec!["trust", "show", "--json"]]),
            (
                "Keys of policy-lint --format json",
                vec![vec!["policy-lint", "--format", "json", "--registries-d", &stores, &twice, &missing]],
            ),
            (
                "Keys of simulate --json",
                vec![
                    vec![
                        "simulate",
                        "--json",
                        "--against",
                        &policy,
                        "--policy",
                        &open,
                        "--refs",
                        &images_list,
                    ],
                    vec![
                        "simulate",
                        "--json",
                        "--against",
                        &policy,
                        "--policy",
                        &missing,
                        "--refs",
                        &images_list,
                    ],
                ],
            ),
            (
                "Keys of explain --json",
                vec![
                    vec!["explain", "--json", "--policy", &policy, "--registries-d", &stores, image],
                    vec!["explain", "--json", "--policy", &policy, "--registries-d", &stores, registry],
                ],
            ),
        ] {
            let mut keys = BTreeSet::new();
            for arguments in runs {
                let text = stdout(&vouchd(&arguments));
                assert!(!text.is_empty(), "{arguments:?}");
                for line in text.lines() {
                    collect_keys(&serde_json::from_str(line).unwrap(), &mut keys);
                }
            }
            assert_eq!(keys_of(subsection), keys, "{subsection}");
        }
    }

    #[test]
    fn help_fits_a_terminal() {
        for arguments in [
            &["--help"][..],
            &["verify", "--help"],
            &["verify-blob", "--help"],
            &["explain", "--help"],
            &["inspect", "--help"],
            &["policy-lint", "--help"],
            &["simulate", "--help"],
            &["daemon", "--help"],
            &["status", "--help"],
            &["reload", "--help"],
            &["trust", "--help"],
            &["trust", "show", "--help"],
            &["trust", "update", "--help"],
            &["trust", "import", "--help"],
        ] {
            let output = vouchd(arguments);
            assert!(output.status.success(), "{arguments:?}");
            for line in stdout(&output).lines() {
                assert!(line.chars().count() <= 79, "{arguments:?}: {line}");
            }
        }
        let mut command = vouchd::cli::command();
        command.build();
        assert_eq!(leaves(&command).len(), 13, "try the help of the new command too");
    }
}

mod readme {
    use super::*;

    /// A fenced block: its language and its text.
    fn blocks(text: &str) -> Vec<(String, String)> {
        let mut pieces = text.split("\n```");
        let mut blocks = Vec::new();
        pieces.next();
        while let Some(block) = pieces.next() {
            let (language, text) = block.split_once('\n').unwrap();
            blocks.push((language.to_owned(), text.to_owned()));
            pieces.next();
        }
        blocks
    }

    #[test]
    fn the_first_two_commands_are_the_demo_and_the_test() {
        let readme = read("README.md");
        let commands: Vec<String> = blocks(&readme)
            .into_iter()
            .filter(|(language, _)| language == "sh")
            .flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let arguments = commands[0].strip_prefix("cargo run --release -- ").unwrap();
        assert_eq!(arguments, format!("verify --policy {DEMO}/policy.json dir:{DEMO}/signed"));
        assert_eq!(commands[1], "cargo test");
    }

    /// The lines that do not depend on the registries.d of the host or on who asks.
    fn same_everywhere(output: &str) -> Vec<&str> {
        let stores = ["  lookaside ", "  attachments "];
        output.lines().filter(|line| !stores.iter().any(|store| line.starts_with(store))).collect()
    }

    /// Paths in the output depend on where the repository is; the README says `/src/vouchd`.
    #[test]
    fn what_the_readme_shows_is_what_is_printed() {
        let readme = read("README.md");
        let blocks = blocks(&readme);
        let mut shown = 0;
        for pair in blocks.windows(2) {
            let [(language, command), (kind, output)] = pair else { continue };
            let command = command.trim_end();
            let arguments = command
                .strip_prefix("cargo run --release -- ")
                .or_else(|| command.strip_prefix("target/release/vouchd "));
            let (Some(arguments), "sh", "text") = (arguments, language.as_str(), kind.as_str()) else {
                continue;
            };
            let arguments: Vec<&str> = arguments.split_whitespace().filter(|word| *word != "\\").collect();
            let run = vouchd(&arguments);
            let printed = stdout(&run).replace(&root().display().to_string(), "/src/vouchd");
            assert_eq!(same_everywhere(&printed), same_everywhere(output), "{command}");
            shown += 1;
        }
        assert!(shown >= 4, "{shown}");
    }

    #[test]
    fn the_demo_images_have_the_verdicts_that_are_written() {
        for (policy, image, exit, text) in [
            ("policy.json", "signed", 0, ": allowed, signature verified"),
            ("policy.json", "tampered", 1, "digest mismatch"),
            ("policy.json", "unsigned", 1, "[unsigned]"),
            ("policy.json", "sigstore", 1, "[unsigned]"),
            ("policy-sigstore.json", "sigstore", 0, ": allowed, signature verified"),
            ("policy-sigstore.json", "signed", 1, "[unsigned]"),
            ("policy-sigstore.json", "tampered", 1, "[unsigned]"),
            ("policy-sigstore.json", "unsigned", 1, "[unsigned]"),
        ] {
            let (policy, reference) = (format!("{DEMO}/{policy}"), format!("dir:{DEMO}/{image}"));
            let output = vouchd(&["verify", "--policy", &policy, &reference]);
            assert_eq!(output.status.code(), Some(exit), "{policy} {reference}");
            let first = stdout(&output).lines().next().unwrap().to_owned();
            assert!(first.starts_with(&reference) && first.contains(text), "{first}");
        }
    }

    #[test]
    fn the_keys_of_the_demo_are_those_of_its_policies() {
        use base64::Engine;
        let policy_key = |policy: &str| {
            let policy: Value = serde_json::from_str(&read(&format!("{DEMO}/{policy}"))).unwrap();
            let key = &policy["transports"]["dir"][""][0]["keyData"];
            base64::engine::general_purpose::STANDARD.decode(key.as_str().unwrap()).unwrap()
        };
        for (policy, file) in [("policy.json", "demo.gpg"), ("policy-sigstore.json", "demo.pub")] {
            assert_eq!(
                policy_key(policy),
                fs::read(root().join(DEMO).join("keys").join(file)).unwrap(),
                "{file}"
            );
        }
    }

    #[test]
    fn the_links_of_the_documents_lead_somewhere() {
        for document in
            ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "policy-examples/README.md"]
        {
            let text = read(document);
            for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
                let there = root().join(document).parent().unwrap().join(link);
                assert!(link.contains("://") || there.exists(), "{document}: {link}");
            }
        }
    }
}

mod policy_examples {
    use super::*;

    fn policies(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            // Below the top there are images too, whose files are JSON as well.
            let is_policy = name.starts_with("policy") || directory.ends_with("policy-examples");
            if path.is_dir() {
                policies(&path, found);
            } else if is_policy && name.ends_with(".json") {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_policy_is_valid_and_described() {
        let mut found = Vec::new();
        policies(&root().join("policy-examples"), &mut found);
        assert!(found.len() >= 4, "{found:?}");
        let described = read("policy-examples/README.md");
        for path in found {
            let policy = Policy::parse(&fs::read(&path).unwrap());
            assert!(policy.is_ok(), "{}: {:?}", path.display(), policy.err());
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with("policy") || described.contains(&format!("`{name}`")), "{name}");
        }
    }
}

mod divergences {
    use super::*;

    /// Entries that belong to vectors are compared with them in `vectors`; these are rules without vectors.
    #[test]
    fn every_rule_is_stricter_and_has_a_reason() {
        let all: Value = serde_json::from_str(&read("tests/divergences.json")).unwrap();
        let rules: Vec<_> = all.as_array().unwrap().iter().filter(|entry| entry["set"] == "rule").collect();
        assert!(rules.len() > 20, "{}", rules.len());
        let mut cases = BTreeSet::new();
        for rule in rules {
            for member in ["case", "reference", "ours", "reason"] {
                assert!(rule[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {rule}");
            }
            assert!(rule["reason"].as_str().unwrap().chars().count() >= 20, "give the reason: {rule}");
            assert_ne!(rule["ours"], "accept", "a false accept is never deliberate: {rule}");
            assert!(cases.insert(rule["case"].as_str().unwrap()), "it is there twice: {rule}");
        }
    }
}
