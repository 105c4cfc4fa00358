//! Every rule about registries and their configuration is proved by a test that names it, or does not apply.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rules by their letter: locations of signatures (D, K, X), attachments (A) and their cryptography (C),
/// registries.conf (M), short names (N), credentials (U), TLS and threats (T), HTTP (H).
const RULES: [(char, &[u32]); 10] = [
    ('A', &[1, 2, 3, 4, 5, 6]),
    ('C', &[1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 20, 21, 22, 23, 24, 25, 30, 31, 32, 33, 34, 35, 40, 41, 42]),
    ('D', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ('H', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ('K', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ('M', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ('N', &[1, 2, 3, 4]),
    ('T', &[1, 2, 12, 13, 15, 16, 17, 19, 22, 23, 24, 25, 28, 29, 31, 34]),
    ('U', &[1, 2, 3, 4, 5]),
    ('X', &[1, 2, 3, 4]),
];

#[test]
fn every_rule_is_cited_by_a_test_or_does_not_apply() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("tests/rules-not-applicable.json")).unwrap();
    let excused: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    let mut cited = BTreeSet::new();
    for path in sources(&root.join("tests/it")) {
        let text = fs::read_to_string(&path).unwrap();
        // What this file says of itself is no test.
        if !path.ends_with("rules.rs") {
            cited.extend(citations(&text));
        }
    }
    for path in sources(&root.join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        if let Some((_, tests)) = text.split_once("#[cfg(test)]") {
            cited.extend(citations(tests));
        }
    }
    let all: BTreeSet<String> = RULES
        .iter()
        .flat_map(|(letter, numbers)| numbers.iter().map(move |n| format!("{letter}-{n}")))
        .collect();
    let missing: Vec<&String> =
        all.iter().filter(|rule| !cited.contains(*rule) && !excused.contains_key(*rule)).collect();
    assert!(missing.is_empty(), "no test cites {missing:?}");
    for (rule, reason) in &excused {
        assert!(all.contains(rule) && reason.len() > 20, "{rule}: {reason}");
        assert!(!cited.contains(rule), "{rule} is cited by a test, so that it applies");
    }
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The rules in comments: `M-4`, and all of `M-4 to M-7`.
fn citations(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("//")) {
        let words: Vec<Option<(char, u32)>> =
            line.split([' ', ',', '.', ';', ':', '(', ')']).map(rule).collect();
        let mut last: Option<(char, u32)> = None;
        let mut range = false;
        for (word, parsed) in line.split([' ', ',', '.', ';', ':', '(', ')']).zip(words) {
            match (parsed, last) {
                (Some((letter, to)), Some((same, from))) if range && letter == same => {
                    found.extend((from..=to).map(|n| format!("{letter}-{n}")));
                }
                (Some((letter, number)), _) => {
                    found.insert(format!("{letter}-{number}"));
                }
                (None, _) => {}
            }
            if parsed.is_some() {
                last = parsed;
                range = false;
            } else if !word.is_empty() {
                range = word == "to";
            }
        }
    }
    found
}

fn rule(word: &str) -> Option<(char, u32)> {
    let (letter, number) = word.split_once('-')?;
    let mut letters = letter.chars();
    let letter = letters.next().filter(char::is_ascii_uppercase)?;
    (letters.next().is_none()).then_some(())?;
    Some((letter, number.parse().ok()?))
}

#[test]
fn citations_are_found_in_comments() {
    let text = "/// Rules A-1, B-2 to B-4; C-5.\nlet x = \"D-6\";\n// (E-7) F-8 and G-9 to H-2.\n";
    let found: Vec<String> = citations(text).into_iter().collect();
    assert_eq!(found, ["A-1", "B-2", "B-3", "B-4", "C-5", "E-7", "F-8", "G-9", "H-2"]);
}
