use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules in the order of the map in `src/lib.rs`.
const ORDER: &[&str] = &[
    "nonempty",
    "digest",
    "diagnostic",
    "json",
    "reference",
    "manifest",
    "verify",
    "policy",
    "evaluate",
    "inspect",
    "lint",
    "config",
    "fetch",
    "engine",
    "report",
    "metrics",
    "journal",
    "dbus",
    "daemon",
    "cli",
];

/// Modules that are pure: they open, connect and ask the time of nothing.
const PURE: &[&str] = &[
    "nonempty",
    "digest",
    "diagnostic",
    "json",
    "reference",
    "manifest",
    "verify",
    "policy",
    "evaluate",
    "inspect",
    "lint",
];

fn sources(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Each module with its lines of code, unit tests left out.
fn modules() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut modules: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    for file in files {
        let first = file.strip_prefix(&src).unwrap().components().next().unwrap();
        let module = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
        modules.entry(module).or_default().push((file, code));
    }
    modules
}

#[test]
fn imports_go_upwards_in_the_map_only() {
    let rank = |module: &str| ORDER.iter().position(|m| *m == module);
    let modules = modules();
    for module in modules.keys() {
        assert!(module == "lib" || module == "main" || rank(module).is_some(), "{module} is not in the map");
    }
    for (module, files) in &modules {
        let Some(own) = rank(module) else { continue };
        for (file, code) in files {
            assert!(!code.contains("crate::{") && !code.contains("super::super"), "{}", file.display());
            for piece in code.split("crate::").skip(1) {
                let target: String = piece.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                // Paths inside attributes such as `in crate::verify` name the module itself.
                let target_rank =
                    rank(&target).unwrap_or_else(|| panic!("{}: crate::{target}", file.display()));
                assert!(target_rank <= own, "{} imports {target}, which stands below it", file.display());
            }
        }
    }
    for (one, other) in [("verify", "policy"), ("policy", "verify")] {
        let forbidden = format!("crate::{other}");
        for (file, code) in &modules[one] {
            assert!(!code.contains(&forbidden), "{} imports {other}", file.display());
        }
    }
}

#[test]
fn pure_modules_do_no_io_and_ask_no_clock() {
    let modules = modules();
    for module in PURE {
        for (file, code) in &modules[*module] {
            for word in [
                "std::fs",
                "std::net",
                "std::env::var",
                "std::io",
                "tokio",
                "SystemTime::now",
                "Instant::now",
                "tracing",
            ] {
                assert!(!code.contains(word), "{} uses {word}", file.display());
            }
        }
    }
}

#[test]
fn the_map_in_the_crate_documentation_names_every_module_in_order() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let table: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`"))
        .filter_map(|line| line.split('`').next())
        .collect();
    assert_eq!(table, ORDER);
    let declared: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod "))
        .map(|line| line.trim_end_matches(';'))
        .collect();
    assert_eq!(declared, ORDER);
}
