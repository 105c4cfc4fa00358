//! registries.conf: which files count, what they mean, where images are fetched from, what short names stand for.
//!
//! What the tables expect of valid files is what the reference says, version 5.42 of its library.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vouchd::config::{
    self, CONFIGURATION_BYTES, Endpoint, Environment, RegistriesConf, RegistriesConfSource, ShortName,
    ShortNames, User, is_short_name,
};
use vouchd::diagnostic::Code;
use vouchd::reference::Named;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// One file, read as if it were the only one; its directory stands as `DIR` in errors.
fn parse(content: impl AsRef<[u8]>) -> Result<RegistriesConf, String> {
    let tmp = TempDir::new().unwrap();
    let path = tmp.path().join("r.conf");
    fs::write(&path, content).unwrap();
    RegistriesConf::load(&RegistriesConfSource::Explicit(path)).map_err(|error| {
        assert_eq!(error.code(), Code::RegistriesConfInvalid, "{error}");
        assert!(!error.help().is_empty());
        error.to_string().replace(tmp.path().to_str().unwrap(), "DIR")
    })
}

fn named(text: &str) -> Named {
    Named::parse(&text.replace("DIGEST", DIGEST)).unwrap()
}

fn endpoints(conf: &RegistriesConf, image: &str) -> Result<Vec<Endpoint>, config::Error> {
    conf.endpoints(&named(image)).map(|endpoints| endpoints.iter().cloned().collect())
}

/// The names of the endpoints, `!` in front of insecure ones, `~` in front of those that are blocked.
fn places(conf: &RegistriesConf, image: &str) -> Vec<String> {
    let endpoints = endpoints(conf, image).unwrap_or_else(|error| panic!("{image}: {error}"));
    let mark = |set: bool, mark: &'static str| if set { mark } else { "" };
    let shown = |e: &Endpoint| {
        let blocked = mark(e.blocked.is_some(), "~");
        let text = format!("{blocked}{}{}", mark(e.insecure, "!"), e.image);
        text.replace(DIGEST, "DIGEST")
    };
    endpoints.iter().map(shown).collect()
}

/// The prefix of the entry that is for an image.
fn prefix(conf: &RegistriesConf, image: &str) -> Option<String> {
    endpoints(conf, image).unwrap()[0].origin.as_ref().map(|entry| entry.prefix.clone())
}

mod endpoints {
    use super::*;

    // Rule M-4.
    #[test]
    fn prefixes_match_whole_parts_of_a_name() {
        for (prefix_, images, others) in [
            (
                "example.com",
                &["example.com/a:1", "example.com/a/b@DIGEST"][..],
                &[
                    "example.com.evil.com/a:1",
                    "a.example.com/a:1",
                    "badexample.com/a:1",
                    "x.io/example.com/a:1",
                ][..],
            ),
            (
                "example.com/ns",
                &["example.com/ns:1", "example.com/ns@DIGEST", "example.com/ns/a:1"],
                &["example.com/nsx:1", "example.com/ns-x/a:1", "example.com/n:1", "example.com:5000/ns/a:1"],
            ),
            (
                "example.com:5000",
                &["example.com:5000/a:1"],
                &["example.com/a:1", "example.com:50000/a:1", "example.com:500/a:1", "example.com:5001/a:1"],
            ),
            (
                "*.example.com",
                &["a.example.com/x:1", "a.b.example.com/x:1", "a.example.com:5000/x:1"],
                &[
                    "example.com/x:1",
                    "a.example.com.evil.com/x:1",
                    "a.example.com.example.com/x:1",
                    "aexample.com/x:1",
                    "evil.com/a.example.com/x:1",
                    "a.example.community/x:1",
                    "A.EXAMPLE.COM/x:1",
                ],
            ),
            (
                "docker.io/library/busybox",
                &["busybox", "docker.io/library/busybox:1"],
                &["docker.io/busybox2:1"],
            ),
            ("EXAMPLE.com", &["EXAMPLE.com/a:1"], &["example.com/a:1"]),
            // The name that is looked up has neither tag nor digest.
            ("example.com/ns:1", &[], &["example.com/ns:1", "example.com/ns:1/a:1"]),
            ("*", &[], &["example.com/a:1"]),
            ("*.", &[], &["a.example.com/a:1"]),
        ] {
            let location = if prefix_.starts_with("*.") { "" } else { "location = 't.example/t'" };
            let conf = parse(format!("[[registry]]\nprefix = '{prefix_}'\n{location}\n")).unwrap();
            for image in images {
                assert_eq!(prefix(&conf, image).as_deref(), Some(prefix_), "{image}");
            }
            for image in others.iter().filter(|image| Named::parse(image).is_ok()) {
                assert_eq!(prefix(&conf, image), None, "{prefix_}: {image}");
                assert_eq!(
                    places(&conf, image),
                    [named(image).to_string()],
                    "a name without entry is its own place"
                );
            }
        }
    }

    // Rule M-4.
    #[test]
    fn the_longest_prefix_counts_and_of_equals_the_first_by_bytes() {
        let all = [
            "example.com",
            "example.com/ns",
            "example.com/ns/app",
            "*.example.com",
            "*.b.example.com",
            "a.example.com",
            "c.b.example.com",
            "*.com",
        ];
        let conf: String =
            all.iter().rev().map(|p| format!("[[registry]]\nprefix=\"{p}\"\nlocation=\"{p}\"\n")).collect();
        let conf = parse(conf.replace("location=\"*", "location=\"w")).unwrap();
        for (image, wanted) in [
            ("example.com/other:1", "example.com"),
            ("example.com/ns/other:1", "example.com/ns"),
            ("example.com/ns/app@DIGEST", "example.com/ns/app"),
            ("example.com/ns/apple:1", "example.com/ns"),
            // As long as "a.example.com", and "*" comes before "a".
            ("a.example.com/x:1", "*.example.com"),
            ("c.b.example.com/x:1", "*.b.example.com"),
            ("b.example.com/x:1", "*.example.com"),
            ("other.com/x:1", "*.com"),
        ] {
            assert_eq!(prefix(&conf, image).as_deref(), Some(wanted), "{image}");
        }
    }

    const MIRRORS: &str = r#"
        [[registry]]
        prefix = "example.com/ns"
        location = "primary.example/p"
        [[registry.mirror]]
        location = "any.example"
        [[registry.mirror]]
        location = "all.example:5000/x/y/"
        pull-from-mirror = "all"
        insecure = true
        [[registry.mirror]]
        location = "digest.example"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tag.example"
        pull-from-mirror = "tag-only"

        [[registry]]
        location = "digests.example"
        insecure = true
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m.example/digests"

        [[registry]]
        prefix = "*.wild.example"
        insecure = true
        mirror = [{ location = "m.example" }, { location = "n.example/n", pull-from-mirror = "" }]

        [[registry]]
        prefix = "*.gone.example"
        location = "here.example/gone"
    "#;

    // Rules M-5, M-9.
    #[test]
    fn mirrors_come_first_and_are_chosen_by_tag_or_digest() {
        let conf = parse(MIRRORS).unwrap();
        for (image, wanted) in [
            (
                "example.com/ns/app:1",
                &[
                    "any.example/app:1",
                    "!all.example:5000/x/y/app:1",
                    "tag.example/app:1",
                    "primary.example/p/app:1",
                ][..],
            ),
            (
                "example.com/ns/app@DIGEST",
                &[
                    "any.example/app@DIGEST",
                    "!all.example:5000/x/y/app@DIGEST",
                    "digest.example/app@DIGEST",
                    "primary.example/p/app@DIGEST",
                ],
            ),
            (
                "example.com/ns/app:1@DIGEST",
                &[
                    "any.example/app:1@DIGEST",
                    "!all.example:5000/x/y/app:1@DIGEST",
                    "digest.example/app:1@DIGEST",
                    "primary.example/p/app:1@DIGEST",
                ],
            ),
            ("digests.example/a:1", &["!digests.example/a:1"]),
            ("digests.example/a@DIGEST", &["m.example/digests/a@DIGEST", "!digests.example/a@DIGEST"]),
            ("digests.example:5000/a:1", &["!digests.example:5000/a:1"]),
            ("a.wild.example/b:1", &["m.example/b:1", "n.example/n/b:1", "!a.wild.example/b:1"]),
            ("a.gone.example/b:1", &["here.example/gone/b:1"]),
            ("other.example/b:1", &["other.example/b:1"]),
            ("busybox", &["docker.io/library/busybox"]),
        ] {
            assert_eq!(places(&conf, image), wanted, "{image}");
        }
        let of = endpoints(&conf, "example.com/ns/app:1").unwrap();
        assert_eq!(of.iter().map(|e| e.is_mirror).collect::<Vec<_>>(), [true, true, true, false]);
        assert!(of.iter().all(|e| e.origin.as_ref().unwrap().prefix == "example.com/ns"), "{of:?}");
        assert!(of.iter().all(|e| e.origin.as_ref().unwrap().file.ends_with("r.conf")), "{of:?}");
        let own = &endpoints(&conf, "other.example/b:1").unwrap()[0];
        assert_eq!((own.is_mirror, own.insecure, &own.origin, &own.blocked), (false, false, &None, &None));
    }

    // Rules M-5, R-11.
    #[test]
    fn one_place_that_gives_no_complete_name_makes_all_unusable() {
        for (text, image) in [
            // A bare host in place of a whole repository.
            ("prefix = \"example.com/ns\"\nlocation = \"b.example\"", "example.com/ns:1"),
            // The port stays behind the repository.
            ("prefix = \"example.com\"\nlocation = \"b.example/x\"", "example.com:5000/ns:1"),
            ("prefix = \"example.com\"\nlocation = \"index.docker.io\"", "example.com/ns/a:1"),
            ("prefix = \"example.com\"\nlocation = \"docker.io\"", "example.com/a:1"),
            ("prefix = \"example.com\"\nlocation = \"short\"", "example.com/a:1"),
            ("prefix = \"example.com\"\nlocation = \"b.example/UPPER\"", "example.com/a:1"),
            ("prefix = \"example.com\"\nlocation = \"b.example/x:1\"", "example.com/a:1"),
            // Tag and digest at once, which no name of an image may have.
            ("prefix = \"example.com/a\"\nlocation = \"b.example/x:1\"", "example.com/a@DIGEST"),
            ("prefix = \"example.com\"\nlocation = \"*.example.com\"", "example.com/a:1"),
            ("prefix = \"example.com\"\nlocation = \"b.example/a b\"", "example.com/a:1"),
            ("prefix = \"example.com\"\nlocation = \"not_a_host.example\"", "example.com/a:1"),
            ("location = \"example.com/ns\"\nmirror = [{location = \"b.example\"}]", "example.com/ns:1"),
            (
                "location = \"example.com/ns\"\nmirror = [{location = \"good.example/x\"}, {location = \"b.example\"}]",
                "example.com/ns@DIGEST",
            ),
        ] {
            let conf = parse(format!("[[registry]]\n{text}\n")).unwrap();
            let error = endpoints(&conf, image).unwrap_err();
            assert_eq!(error.code(), Code::RegistriesConfInvalid, "{text}");
            assert!(error.to_string().contains("r.conf\" says: with the rest of the name"), "{error}");
            assert!(endpoints(&conf, "other.example/a:1").is_ok());
        }
        // A mirror that would not be asked does not matter.
        let conf = "[[registry]]\nlocation = \"example.com/ns\"\nmirror-by-digest-only = true\nmirror = [{location = \"b.example\"}]\n";
        let conf = parse(conf).unwrap();
        assert_eq!(places(&conf, "example.com/ns:1"), ["example.com/ns:1"]);
        assert!(endpoints(&conf, "example.com/ns@DIGEST").is_err());
    }

    const BLOCKED: &str = r#"
        [[registry]]
        location = "blocked.example"
        blocked = true
        [[registry.mirror]]
        location = "m.example"

        [[registry]]
        prefix = "moved.example"
        location = "elsewhere.example"
        blocked = true

        [[registry]]
        prefix = "*.wild.example"
        blocked = true
        [[registry]]
        location = "good.wild.example/free"

        [[registry]]
        location = "good.example"
        [[registry.mirror]]
        location = "blocked.example/cache"
        [[registry.mirror]]
        location = "other.example/cache"

        [[registry]]
        prefix = "alias.example"
        location = "blocked.example/x"
    "#;

    // Rule M-8.
    #[test]
    fn what_is_blocked_under_its_own_name_is_refused_wherever_it_would_come_from() {
        let conf = parse(BLOCKED).unwrap();
        for (image, wanted) in [
            ("blocked.example/a:1", "blocked.example"),
            ("blocked.example:5000/a:1", "blocked.example"),
            ("moved.example/a@DIGEST", "moved.example"),
            ("a.wild.example/a:1", "*.wild.example"),
            ("good.wild.example/freedom:1", "*.wild.example"),
        ] {
            let error = endpoints(&conf, image).unwrap_err();
            assert_eq!(error.code(), Code::RegistryBlocked, "{image}");
            let text = error.to_string();
            assert!(text.contains(&format!("is blocked by registry prefix \"{wanted}\" in \"/")), "{text}");
            assert!(text.ends_with("/r.conf\""), "{text}");
        }
        assert_eq!(places(&conf, "good.wild.example/free/a:1"), ["good.wild.example/free/a:1"]);
    }

    // Rules M-8, S-22.
    #[test]
    fn a_place_that_is_blocked_is_told_and_the_others_stay() {
        let conf = parse(BLOCKED).unwrap();
        assert_eq!(
            places(&conf, "good.example/a:1"),
            ["~blocked.example/cache/a:1", "other.example/cache/a:1", "good.example/a:1"]
        );
        assert_eq!(places(&conf, "alias.example/a:1"), ["~blocked.example/x/a:1"]);
        let alias = &endpoints(&conf, "alias.example/a:1").unwrap()[0];
        assert_eq!(alias.blocked.as_ref().unwrap().prefix, "blocked.example");
        assert_eq!(alias.origin.as_ref().unwrap().prefix, "alias.example");
    }

    // Rule M-5.
    #[test]
    fn a_proxy_that_must_be_told_the_registry_is_not_asked_without() {
        let conf = "[[registry]]\nlocation = \"example.com\"\n[[registry.mirror]]\nlocation = \"p.example\"\nNamespace-Proxy = \"example.com\"\npull-from-mirror = \"digest-only\"\n";
        let conf = parse(conf).unwrap();
        assert_eq!(places(&conf, "example.com/a:1"), ["example.com/a:1"]);
        let error = endpoints(&conf, "example.com/a@DIGEST").unwrap_err();
        assert!(error.to_string().contains("\"namespace-proxy\" is not supported"), "{error}");
    }
}

mod validation {
    use super::*;

    // Rule M-3.
    #[test]
    fn faults_are_told_with_their_place() {
        for (text, at, wanted) in [
            ("[[registry]]\n", "1:1", "neither a \"location\" nor a \"prefix\""),
            (
                "[[registry]]\nprefix = \"\"\nlocation = \"\"\n",
                "1:1",
                "neither a \"location\" nor a \"prefix\"",
            ),
            ("[[registry]]\nlocation = \"//\"\n", "1:1", "neither a \"location\" nor a \"prefix\""),
            ("[[registry]]\nprefix = \"example.com\"\n", "2:10", "needs a \"location\""),
            ("[[registry]]\nprefix = \"*example.com\"\n", "2:10", "needs a \"location\""),
            ("[[registry]]\nprefix = \"*.a.b/c\"\n", "2:10", "host name"),
            ("[[registry]]\nprefix = \"*.a.b:80\"\nlocation = \"x\"\n", "2:10", "host name"),
            ("[[registry]]\nprefix = \"*.a.b@x\"\n", "2:10", "host name"),
            ("[[registry]]\nlocation = \"*.a.b/c\"\n", "1:1", "host name"),
            ("[[registry]]\nlocation = \"https://a.b\"\n", "2:12", "without \"http://\" or \"https://\""),
            ("[[registry]]\nprefix = \"http://a.b/\"\nlocation = \"a\"\n", "2:10", "without \"http://\""),
            ("[[registry]]\nlocation = \"a\"\npull-from-mirror = \"all\"\n", "3:20", "mirrors only"),
            (
                "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\n",
                "3:1",
                "\"mirror\" has no \"location\"",
            ),
            ("[[registry]]\nlocation = \"a\"\nmirror = [{location = \"/\"}]\n", "3:11", "\"mirror\" has no"),
            (
                "[[registry]]\nlocation = \"a\"\nmirror = [{location = \"http://a\"}]\n",
                "3:23",
                "without \"http://\"",
            ),
            (
                "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"never\"\n",
                "5:20",
                "\"never\" is none of \"all\", \"digest-only\" and \"tag-only\"",
            ),
            (
                "[[registry]]\nlocation = \"a\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"all\"\n",
                "6:20",
                "does not go together",
            ),
            ("unqualified-search-registries = [\"a\", \"b/c\"]\n", "1:39", "\"b/c\" is no host"),
            ("unqualified-search-registries = [\"\"]\n", "1:34", "is no host"),
            ("unqualified-search-registries = [\"https://a\"]\n", "1:34", "without \"http://\""),
            ("short-name-mode = \"Disabled\"\n", "1:19", "\"Disabled\" is none of"),
            ("[aliases]\n\"a:1\" = \"b.c/d\"\n", "2:1", "\"a:1\" is no short name"),
            ("[aliases]\n\"a.b/c\" = \"\"\n", "2:1", "\"a.b/c\" is no short name"),
            (
                "[aliases]\nlocalhost.x = \"\"\n",
                "2:1",
                "\"localhost\" must be a string and not of type table",
            ),
            ("[aliases]\na = \"b/c\"\n", "2:5", "must begin with the host"),
            ("[aliases]\na = \"b.c\"\n", "2:5", "must begin with the host"),
            ("[aliases]\na = \"b_c.d/e\"\n", "2:5", "must begin with the host"),
            ("[aliases]\na = \"b.c/d:1\"\n", "2:5", "neither tag nor digest"),
            ("[aliases]\na = \"b.c/D\"\n", "2:5", "lower case"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("cannot use \"DIR/r.conf:{at}\": ")), "{text}: {error}");
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    // Rules M-2, N-3.
    #[test]
    fn the_mode_of_short_names_is_one_of_three_or_empty() {
        for mode in ["disabled", "enforcing", "permissive", ""] {
            assert!(parse(format!("short-name-mode = '{mode}'\n")).is_ok(), "{mode}");
        }
        for mode in ["Enforcing", "prompt", " "] {
            assert!(parse(format!("short-name-mode = '{mode}'\n")).is_err(), "{mode}");
        }
    }

    // Rule M-3.
    #[test]
    fn tables_of_one_location_agree_in_one_file() {
        let two =
            |first: &str, second: &str| parse(format!("[[registry]]\n{first}\n\n[[registry]]\n{second}\n"));
        for (first, second, setting) in [
            (
                "location = 'a'",
                "prefix = 'b'\nlocation = 'a'\nblocked = true",
                "\"blocked\" of \"a\" is true here and false in the table of line 1",
            ),
            (
                "location = 'a'\ninsecure = true",
                "prefix = 'b'\nlocation = 'a/'",
                "\"insecure\" of \"a\" is false here and true",
            ),
            ("prefix = '*.a'\nblocked = true", "location = '*.a'", "\"blocked\" of \"*.a\""),
            (
                "prefix = 'b'\nlocation = 'a'\nblocked = true",
                "prefix = 'b'\nlocation = 'a'",
                "\"blocked\" of \"a\"",
            ),
        ] {
            let error = two(first, second).unwrap_err();
            assert!(error.contains(setting), "{error}");
            assert!(error.contains("r.conf:"), "{error}");
        }
        assert!(
            two("location = 'a'\nblocked = true", "prefix = 'b'\nlocation = 'a'\nblocked = true").is_ok()
        );
        // The first of equal prefixes counts.
        let conf =
            two("prefix = 'a.b'\nlocation = 'c.d'", "prefix = 'a.b/'\nlocation = 'e.f'\nblocked = true")
                .unwrap();
        assert_eq!(places(&conf, "a.b/x:1"), ["c.d/x:1"]);
    }

    // Rule M-3.
    #[test]
    fn values_have_their_types() {
        for text in [
            "registry = 1",
            "registry = [1]",
            "[registry]\nlocation = 'a'",
            "[[registry]]\nlocation = 1",
            "[[registry]]\nprefix = ['a']",
            "[[registry]]\nlocation = 'a'\nblocked = 'true'",
            "[[registry]]\nlocation = 'a'\nblocked = 1",
            "[[registry]]\nlocation = 'a'\ninsecure = 'false'",
            "[[registry]]\nlocation = 'a'\nmirror-by-digest-only = 0",
            "[[registry]]\nlocation = 'a'\nmirror = 'b'",
            "[[registry]]\nlocation = 'a'\n[registry.mirror]\nlocation = 'b'",
            "[[registry]]\nlocation = 'a'\nmirror = ['b']",
            "[[registry]]\nlocation = 'a'\nmirror = [{location = 'b', insecure = 'yes'}]",
            "[[registry]]\nlocation = 'a'\nnamespace-proxy = true",
            "unqualified-search-registries = 'a'",
            "unqualified-search-registries = [1]",
            "credential-helpers = 'a'",
            "credential-helpers = [['a']]",
            "short-name-mode = true",
            "additional-layer-store-auth-helper = 1",
            "aliases = ['a']",
            "[[aliases]]\na = 'b.c/d'",
            "[aliases]\na = 1",
            "registries = ['a']",
            "[registries]\nsearch = ['a']",
            "[registries.block]\nregistries = 'a'",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(" must be ") && error.contains("r.conf:"), "{text}: {error}");
        }
    }

    // Rule M-1.
    #[test]
    fn version_1_of_the_format_is_an_error() {
        for (table, text) in [
            ("search", "[registries.search]\nregistries = ['docker.io']\n"),
            ("insecure", "[registries.insecure]\nregistries = []\n"),
            ("block", "[registries.search]\n[registries.block]\nregistries = ['a']\n"),
            ("block", "[[registry]]\nlocation = 'a'\n[Registries]\nBlock.REGISTRIES = ['a']\n"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(&format!("\"registries.{table}\" is of version 1")), "{error}");
            assert!(error.contains("r.conf:"), "{error}");
        }
        // Without a list there is nothing to lose.
        assert!(parse("[registries]\nother = 1\n[registries.search]\nx = 1\n").is_ok());
    }
}

mod syntax {
    use super::*;

    // Rules M-1, M-3.
    #[test]
    fn keys_count_in_any_case_and_unknown_ones_mean_nothing() {
        for text in [
            "[[registry]]\nlocation = 'a.b'\nblocked = true",
            "[[REGISTRY]]\nLocation = 'a.b'\nBLOCKED = true",
            "[[regi\\u017ftry]]\nlocation = 'a.b'\nblocked = true"
                .replace("regi\\u017ftry", "\"regi\\u017ftry\"")
                .as_str(),
            "[[registry]]\nlocation = 'a.b'\n\"bloc\u{212a}ed\" = true",
            "registry = [{ 'location' = \"\"\"\na.b\"\"\", blocked = true, other = { blocked = false } }]",
            "registry = [\n  { location = 'a.b',\n    blocked = true, # both TOML 1.1\n  },\n]",
            "\u{feff}other = 1\r\n[[registry]]\r\nlocation = 'a.b' # é\r\nblocked = true\r\n",
            "[[registry]]\nlocation = \"a\\x2eb\"\nblocked = true\n[registry.other]\nblocked = false\n[other]\ntime = 07:32",
            "[[registry]]\nlocation = \"a.b\"\nblocked = true\nnever-heard-of = [1, 2.5, 1979-05-27, [{a = 1}]]",
        ] {
            let conf = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let error = endpoints(&conf, "a.b/x:1").unwrap_err();
            assert_eq!(error.code(), Code::RegistryBlocked, "{text}");
        }
        // One that is only similar is none.
        let conf = parse("[[registry]]\nlocation = 'a.b'\nblock = true\nblocked_ = true\n").unwrap();
        assert_eq!(places(&conf, "a.b/x:1"), ["a.b/x:1"]);
    }

    // Rule M-3.
    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (text, at, wanted) in [
            (
                "[[registry]]\nlocation = 'a'\nblocked = true\nBlocked = false\n",
                "4:1",
                "\"Blocked\" and \"blocked\" of line 3 are the same key",
            ),
            (
                "[[registry]]\nlocation = 'a'\nBlocked = false\nblocked = true\n",
                "4:1",
                "\"blocked\" and \"Blocked\" of line 3",
            ),
            (
                "[[registry]]\nlocation = 'a'\n[[REGISTRY]]\nlocation = 'b'\n",
                "3:3",
                "\"REGISTRY\" and \"registry\" of line 1",
            ),
            (
                "[[registry]]\nlocation = 'a'\nmirror = []\n[[registry.Mirror]]\nlocation = 'b'\n",
                "4:12",
                "the same key",
            ),
            ("[aliases]\n[Aliases]\n", "2:2", "the same key"),
            ("[[registry]]\nlocation = 'a'\nblocked = true\nblocked = true\n", "4:1", "duplicate key"),
            ("registry = []\n[[registry]]\nlocation = 'a'\n", "2:3", ""),
            ("[aliases]\na = ''\n\"a\" = ''\n", "3:1", "duplicate key"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("cannot use \"DIR/r.conf:{at}\": ")), "{text}: {error}");
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    // Rule M-1.
    #[test]
    fn what_is_not_toml_is_refused() {
        for text in [
            "[[registry]]\nlocation = a\n",
            "[[registry]\nlocation = 'a'\n",
            "[[registry]]\nlocation = 'a' blocked = true\n",
            "[[registry]]\nlocation = 'a\n",
            "registries:\n- a\n",
            "{}",
            "a = 1\rb = 1",
            "a = '\u{7f}'",
            "a = \"\\q\"",
            "# \0\n",
            // Both of these the reference refuses even under keys that mean nothing.
            "other = [{ a =\n 1 }]\n",
            "other = [{a = 9223372036854775808}]\n",
            "other = -1e999\n",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("cannot use \"DIR/r.conf:"), "{text:?}: {error}");
        }
        let error = parse(b"# \xff\n").unwrap_err();
        assert!(error.contains("utf-8"), "{error}");
        assert!(parse("").is_ok());
        assert!(parse("a = [9223372036854775807, -0x0, inf, -inf, nan]".replace("-0x0", "0x7F")).is_ok());
        let deep = format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(deep).is_err());
    }

    #[test]
    fn texts_of_a_file_are_escaped_where_they_are_printed() {
        let error = parse("short-name-mode = \"\\u001b[31m\\u202e\"\n").unwrap_err();
        assert!(error.contains("\\u{1b}[31m\\u{202e}") && !error.contains('\u{1b}'), "{error}");
    }
}

mod files {
    use super::*;

    fn host(tmp: &TempDir, uid: u32) -> Environment {
        Environment { root: tmp.path().join("root"), uid, user: Some(User::at_home(tmp.path().join("home"))) }
    }

    fn load(environment: &Environment) -> Result<RegistriesConf, config::Error> {
        RegistriesConf::load(&RegistriesConfSource::Search(environment.clone()))
    }

    fn to(location: &str) -> String {
        format!("[[registry]]\nprefix = 'a.b'\nlocation = '{location}'\n")
    }

    fn place(environment: &Environment) -> String {
        places(&load(environment).unwrap(), "a.b/x:1")[0].clone()
    }

    // Rules M-1, L-3, L-6.
    #[test]
    fn the_first_main_file_counts_alone() {
        let tmp = TempDir::new().unwrap();
        let environment = host(&tmp, 1000);
        assert_eq!(place(&environment), "a.b/x:1");
        for (path, location) in [
            ("root/usr/share/containers/registries.conf", "vendor.example"),
            ("root/etc/containers/registries.conf", "admin.example"),
            ("home/.config/containers/registries.conf", "user.example"),
        ] {
            write(&tmp.path().join(path), to(location));
            assert_eq!(place(&environment), format!("{location}/x:1"), "{path}");
        }
        let mut user = User::at_home(tmp.path().join("home"));
        user.xdg_config_home = Some(tmp.path().join("xdg"));
        let with_xdg = Environment { user: Some(user), ..environment.clone() };
        assert_eq!(place(&with_xdg), "admin.example/x:1");
        write(&tmp.path().join("xdg/containers/registries.conf"), to("xdg.example"));
        assert_eq!(place(&with_xdg), "xdg.example/x:1");
    }

    // Rule T-22.
    #[test]
    fn without_a_user_only_the_files_of_the_system_count() {
        let tmp = TempDir::new().unwrap();
        write(&tmp.path().join("home/.config/containers/registries.conf"), to("user.example"));
        write(&tmp.path().join("home/.config/containers/registries.conf.d/a.conf"), to("user.example"));
        write(&tmp.path().join("root/etc/containers/registries.conf"), to("admin.example"));
        let environment = Environment { user: None, ..host(&tmp, 0) };
        assert_eq!(place(&environment), "admin.example/x:1");
    }

    // Rules M-1, D-1.
    #[test]
    fn of_drop_ins_with_one_name_the_nearest_counts_and_the_last_name_wins() {
        let directories = |special: &[&str]| {
            let mut all = vec!["home/.config/containers/registries.conf.d".to_owned()];
            for base in ["root/etc/containers", "root/usr/share/containers"] {
                all.extend(special.iter().map(|name| format!("{base}/{name}")));
                all.push(format!("{base}/registries.conf.d"));
            }
            all
        };
        for (uid, special) in [
            (0, &["registries.rootful.conf.d"][..]),
            (1000, &["registries.rootless.conf.d/1000", "registries.rootless.conf.d"]),
        ] {
            let tmp = TempDir::new().unwrap();
            let environment = host(&tmp, uid);
            write(&tmp.path().join("root/etc/containers/registries.conf"), to("main.example"));
            let decoys = [
                "root/etc/containers/registries.conf.d/z.txt",
                "root/etc/containers/registries.conf.d/z.conf.bak",
                "root/etc/containers/registries.conf.d/dir.conf/z.conf",
                "root/etc/containers/registries.rootless.conf.d/1001/z.conf",
                "root/etc/containers/registries.conf.rootful.d/z.conf",
            ];
            for decoy in decoys {
                write(&tmp.path().join(decoy), "broken");
            }
            assert_eq!(place(&environment), "main.example/x:1");
            for (n, directory) in directories(special).iter().enumerate().rev() {
                write(&tmp.path().join(directory).join("a.conf"), to(&format!("a{n}.example")));
                assert_eq!(place(&environment), format!("a{n}.example/x:1"), "{uid}: {directory}");
            }
            let last = "root/usr/share/containers/registries.conf.d";
            write(&tmp.path().join(last).join(".conf"), to("hidden.example"));
            assert_eq!(place(&environment), "a0.example/x:1", "\".conf\" comes before \"a.conf\"");
            write(&tmp.path().join(last).join("b.conf"), to("b.example"));
            assert_eq!(place(&environment), "b.example/x:1");
            let other = if uid == 0 { "registries.rootless.conf.d" } else { "registries.rootful.conf.d" };
            write(&tmp.path().join("root/etc/containers").join(other).join("z.conf"), to("other.example"));
            assert_eq!(place(&environment), "b.example/x:1", "of other users");
        }
    }

    // Rules M-1, T-22.
    #[test]
    fn variables_name_a_file_without_drop_ins_and_one_that_is_read_last() {
        let tmp = TempDir::new().unwrap();
        let mut environment = host(&tmp, 1000);
        write(&tmp.path().join("home/.config/containers/registries.conf"), to("user.example"));
        write(&tmp.path().join("root/etc/containers/registries.conf.d/a.conf"), to("drop-in.example"));
        write(&tmp.path().join("named.conf"), to("named.example"));
        write(&tmp.path().join("last.conf"), to("last.example"));
        assert_eq!(place(&environment), "drop-in.example/x:1");
        let user = |file: Option<&str>, last: Option<&str>| User {
            registries_conf: file.map(|name| tmp.path().join(name)),
            registries_conf_override: last.map(|name| tmp.path().join(name)),
            ..User::at_home(tmp.path().join("home"))
        };
        for (file, last, wanted) in [
            (Some("named.conf"), None, Some("named.example/x:1")),
            (None, Some("last.conf"), Some("last.example/x:1")),
            (Some("named.conf"), Some("last.conf"), Some("last.example/x:1")),
            (Some("none.conf"), None, None),
            (None, Some("none.conf"), None),
        ] {
            environment.user = Some(user(file, last));
            match wanted {
                Some(wanted) => assert_eq!(place(&environment), wanted, "{file:?} {last:?}"),
                None => {
                    let error = load(&environment).unwrap_err();
                    assert!(error.to_string().contains("/none.conf\": No such file"), "{error}");
                }
            }
        }
    }

    // Rule M-1.
    #[test]
    fn an_explicit_file_is_read_alone_and_must_exist() {
        let tmp = TempDir::new().unwrap();
        let path = tmp.path().join("etc/containers/registries.conf");
        write(&path, to("main.example"));
        write(&tmp.path().join("etc/containers/registries.conf.d/a.conf"), to("drop-in.example"));
        let load = |path: &Path| RegistriesConf::load(&RegistriesConfSource::Explicit(path.to_owned()));
        assert_eq!(places(&load(&path).unwrap(), "a.b/x:1"), ["main.example/x:1"]);
        let error = load(&tmp.path().join("none")).unwrap_err();
        assert_eq!(error.code(), Code::RegistriesConfInvalid);
        assert!(load(tmp.path()).is_err(), "a directory");
    }

    // Rule T-23.
    #[test]
    fn only_what_is_truly_absent_is_passed_over() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 3] = [
            ("a link that leads nowhere", |path| symlink("/nowhere/at/all", path).unwrap()),
            ("a directory", |path| fs::create_dir(path).unwrap()),
            ("not text", |path| fs::write(path, b"\xff").unwrap()),
        ];
        for name in [
            "home/.config/containers/registries.conf",
            "root/etc/containers/registries.conf",
            "root/usr/share/containers/registries.conf",
            "root/etc/containers/registries.conf.d/a.conf",
            "root/etc/containers/registries.rootful.conf.d/a.conf",
        ] {
            for (what, damage) in damages {
                let tmp = TempDir::new().unwrap();
                let path = tmp.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                damage(&path);
                let result = load(&host(&tmp, 0));
                // Directories are no files of a directory of drop-ins.
                if what == "a directory" && name.ends_with("/a.conf") {
                    assert!(result.is_ok());
                    continue;
                }
                let error = result.unwrap_err();
                assert_eq!(error.code(), Code::RegistriesConfInvalid, "{name}, {what}");
                assert!(error.to_string().contains(name), "{name}, {what}: {error}");
            }
        }
        for directory in ["root/etc/containers/registries.conf.d", "root/etc/containers"] {
            let tmp = TempDir::new().unwrap();
            let path = tmp.path().join(directory);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink("/nowhere/at/all", &path).unwrap();
            assert!(load(&host(&tmp, 0)).is_err(), "{directory}");
            fs::remove_file(&path).unwrap();
            fs::write(&path, "").unwrap();
            assert!(load(&host(&tmp, 0)).is_err(), "{directory} is a file");
        }
        let tmp = TempDir::new().unwrap();
        write(&tmp.path().join("root/usr/share/containers/registries.conf"), to("vendor.example"));
        let masked = tmp.path().join("root/etc/containers/registries.conf");
        fs::create_dir_all(masked.parent().unwrap()).unwrap();
        symlink("/dev/null", masked).unwrap();
        assert_eq!(place(&host(&tmp, 0)), "a.b/x:1", "a masked file is an empty one");
    }

    #[test]
    fn sizes_and_numbers_are_limited() {
        let mut text = "#".repeat(CONFIGURATION_BYTES);
        assert!(parse(&text).is_ok());
        text.push('#');
        assert!(parse(&text).unwrap_err().contains("larger than"));
        let tmp = TempDir::new().unwrap();
        let directory = tmp.path().join("root/etc/containers/registries.conf.d");
        for n in 0..1024 {
            write(&directory.join(format!("{n}.conf")), "");
        }
        assert!(load(&host(&tmp, 0)).is_ok());
        write(&directory.join("more.conf"), "");
        let error = load(&host(&tmp, 0)).unwrap_err().to_string();
        assert!(error.contains("more than 1024 files"), "{error}");
    }

    // Rules M-2, U-3.
    #[test]
    fn later_files_replace_what_they_set() {
        let tmp = TempDir::new().unwrap();
        let environment = host(&tmp, 0);
        let directory = tmp.path().join("root/etc/containers/registries.conf.d");
        write(
            &tmp.path().join("root/etc/containers/registries.conf"),
            "unqualified-search-registries = ['one.example']\ncredential-helpers = ['pass', 'containers-auth.json']\n\
             [[registry]]\nprefix = 'a.b'\nlocation = 'c.d'\nblocked = true\n[[registry.mirror]]\nlocation = 'm.n'\n\
             [[registry]]\nprefix = 'e.f'\nlocation = 'c.d'\nblocked = true\n\
             [aliases]\nkept = 'kept.example/x'\nchanged = 'old.example/x'\nerased = 'old.example/x'\n",
        );
        write(
            &directory.join("1.conf"),
            "[[registry]]\nprefix = 'a.b/'\nlocation = 'c.d'\n[aliases]\nchanged = 'new.example/x'\nerased = ''\n",
        );
        let conf = load(&environment).unwrap();
        // The whole table is replaced. Tables of one location need not agree with those of other files.
        assert_eq!(places(&conf, "a.b/x:1"), ["c.d/x:1"]);
        assert_eq!(endpoints(&conf, "e.f/x:1").unwrap_err().code(), Code::RegistryBlocked);
        assert_eq!(conf.credential_helpers(), ["pass", "containers-auth.json"]);
        let unique = |conf: &RegistriesConf, name: &str| {
            conf.resolve_unique(name, ShortNames::Search)
                .map(|image| image.to_string())
                .map_err(|e| e.to_string())
        };
        assert_eq!(unique(&conf, "kept").unwrap(), "kept.example/x:latest");
        assert_eq!(unique(&conf, "changed:1").unwrap(), "new.example/x:1");
        assert_eq!(unique(&conf, "erased").unwrap(), "one.example/erased:latest");
        write(&directory.join("2.conf"), "unqualified-search-registries = []\ncredential-helpers = []\n");
        let conf = load(&environment).unwrap();
        assert_eq!(conf.credential_helpers(), ["containers-auth.json"]);
        assert!(unique(&conf, "erased").unwrap_err().contains("no \"unqualified-search-registries\""));
        let tmp = TempDir::new().unwrap();
        assert_eq!(load(&host(&tmp, 0)).unwrap().credential_helpers(), ["containers-auth.json"]);
    }

    // Rules M-2, M-8.
    #[test]
    fn one_file_that_cannot_be_used_makes_all_unusable() {
        let tmp = TempDir::new().unwrap();
        write(&tmp.path().join("root/etc/containers/registries.conf"), to("main.example"));
        let path: PathBuf = tmp.path().join("root/etc/containers/registries.conf.d/a.conf");
        write(&path, "[[registry]]\nlocation = 'a.b'\nblocked = 'yes'\n");
        let error = load(&host(&tmp, 0)).unwrap_err().to_string();
        assert!(error.contains("/root/etc/containers/registries.conf.d/a.conf:3:11\""), "{error}");
    }
}

mod short_names {
    use super::*;

    // Rule N-1.
    #[test]
    fn a_name_without_a_host_is_short() {
        for (text, wanted) in [
            ("app", true),
            ("app:1", true),
            ("app@DIGEST", true),
            ("ns/app", true),
            ("ns/app:1.2", true),
            ("ns/a.b/c", true),
            ("example.com", true),
            ("localhost", true),
            ("localhost:5000", true),
            ("example.com/app", false),
            ("host:5000/app", false),
            ("localhost/app", false),
            ("localhost:5000/app", false),
        ] {
            assert_eq!(is_short_name(text), wanted, "{text}");
        }
    }

    const ALIASES: &str = "unqualified-search-registries = ['docker.io', 'quay.io:443/']\n[aliases]\n\
        app = 'docker.io/app'\n'ns/app' = 'example.com:5000/x/y'\nhub = 'index.docker.io/ns/hub'\n\
        local = 'localhost/x'\nerased = ''\n'example.com' = 'e.example/e'\n'Up/x' = 'e.example/e'\n";

    fn resolved(conf: &RegistriesConf, name: &str) -> Vec<String> {
        let shown = |image: &Named| image.to_string().replace(DIGEST, "DIGEST");
        match conf.resolve_short_name(&name.replace("DIGEST", DIGEST)).unwrap() {
            ShortName::Alias { image, file } => {
                assert!(file.ends_with("r.conf"));
                vec![format!("alias {}", shown(&image))]
            }
            ShortName::Candidates { images, file } => {
                assert!(file.ends_with("r.conf"));
                images.iter().map(shown).collect()
            }
        }
    }

    // Rules N-2, N-3.
    #[test]
    fn an_alias_counts_else_every_registry_is_a_candidate() {
        let conf = parse(ALIASES).unwrap();
        for (name, wanted) in [
            ("app", &["alias docker.io/library/app:latest"][..]),
            ("app:1", &["alias docker.io/library/app:1"]),
            ("app@DIGEST", &["alias docker.io/library/app@DIGEST"]),
            ("app:1@DIGEST", &["alias docker.io/library/app:1@DIGEST"]),
            ("ns/app:1", &["alias example.com:5000/x/y:1"]),
            ("hub", &["alias docker.io/ns/hub:latest"]),
            ("local", &["alias localhost/x:latest"]),
            ("example.com:1", &["alias e.example/e:1"]),
            ("erased", &["docker.io/library/erased:latest", "quay.io:443/erased:latest"]),
            ("ns/other:1", &["docker.io/ns/other:1", "quay.io:443/ns/other:1"]),
            ("ns/app/x", &["docker.io/ns/app/x:latest", "quay.io:443/ns/app/x:latest"]),
            ("other@DIGEST", &["docker.io/library/other@DIGEST", "quay.io:443/other@DIGEST"]),
        ] {
            assert_eq!(resolved(&conf, name), wanted, "{name}");
        }
    }

    // Rules N-3, N-4, T-22.
    #[test]
    fn a_unique_name_is_never_a_guess() {
        let none = parse("").unwrap();
        let one =
            parse("unqualified-search-registries = ['quay.io']\n[aliases]\na = 'a.example/a'\n").unwrap();
        let two = parse(ALIASES).unwrap();
        let (only, search) = (ShortNames::AliasesOnly, ShortNames::Search);
        for (conf, name, with, wanted) in [
            (&two, "app", only, Ok("docker.io/library/app:latest")),
            (&two, "app", search, Ok("docker.io/library/app:latest")),
            (&two, "other:1", search, Err("\"docker.io/library/other:1\" or \"quay.io:443/other:1\"")),
            (&two, "other:1", only, Err("there is no alias for it")),
            (&two, "erased", only, Err("there is no alias for it")),
            (&one, "other", search, Ok("quay.io/other:latest")),
            (&one, "other", only, Err("there is no alias for it")),
            (&one, "a:1", only, Ok("a.example/a:1")),
            (&none, "other", search, Err("no \"unqualified-search-registries\"")),
            (&none, "other", only, Err("there is no alias for it")),
            (&two, "example.com/app", search, Err("it is no short name")),
            (&two, "localhost/app", only, Err("it is no short name")),
            (&two, "app:", search, Err("the tag must be")),
            (&two, "App", search, Err("lower case")),
            (&two, "", search, Err("not a repository name")),
            (&two, "app@sha256:ab", only, Err("the digest")),
            (&two, &DIGEST[7..], search, Err("image ID")),
            (&two, "app\u{1b}[2J", search, Err("app\\u{1b}[2J")),
        ] {
            match (conf.resolve_unique(name, with), wanted) {
                (Ok(image), Ok(wanted)) => assert_eq!(image.to_string(), wanted, "{name} {with:?}"),
                (Err(error), Err(wanted)) => {
                    assert_eq!(error.code(), Code::ShortName);
                    assert!(!error.help().is_empty());
                    assert!(error.to_string().contains(wanted), "{name} {with:?}: {error}");
                }
                (result, _) => panic!("{name} {with:?}: {result:?}"),
            }
        }
        // With a registry in front it must still be a name.
        let far = parse("unqualified-search-registries = ['registry.with-a-long-name.example']\n").unwrap();
        let long = "a".repeat(237);
        let error = far.resolve_unique(&long, search).unwrap_err().to_string();
        assert!(error.contains("with \"registry.with-a-long-name.example\" of \"/"), "{error}");
        assert!(error.ends_with("in front, the name is too long"), "{error}");
        let error = far.resolve_unique(&long, only).unwrap_err().to_string();
        assert!(error.ends_with("there is no alias for it"), "{error}");
    }

    // Rules N-2, T-22.
    #[test]
    fn the_cache_of_aliases_comes_first_and_is_the_users_or_the_systems() {
        let tmp = TempDir::new().unwrap();
        let root = tmp.path().join("root");
        let conf = "unqualified-search-registries = ['s.example']\n[aliases]\na = 'conf.example/a'\nb = 'conf.example/b'\nc = 'conf.example/c'\n";
        write(&root.join("etc/containers/registries.conf"), conf);
        let cache =
            |name: &str| format!("[aliases]\na = '{name}.example/a'\nb = ''\n[[registry]]\nlocation = 1\n");
        write(&root.join("var/cache/containers/short-name-aliases.conf"), cache("system"));
        write(&tmp.path().join("home/.cache/containers/short-name-aliases.conf"), cache("home"));
        write(&tmp.path().join("xdg/containers/short-name-aliases.conf"), cache("xdg"));
        let user = User::at_home(tmp.path().join("home"));
        let with_xdg = User { xdg_cache_home: Some(tmp.path().join("xdg")), ..user.clone() };
        for (uid, user, wanted) in [
            (0, None, "system.example/a:1"),
            (0, Some(user.clone()), "system.example/a:1"),
            (1000, Some(user.clone()), "home.example/a:1"),
            (1000, Some(with_xdg), "xdg.example/a:1"),
            (1000, None, "conf.example/a:1"),
        ] {
            let environment = Environment { root: root.clone(), uid, user };
            let conf = RegistriesConf::load(&RegistriesConfSource::Search(environment)).unwrap();
            let unique = |name| conf.resolve_unique(name, ShortNames::Search).unwrap().to_string();
            assert_eq!(unique("a:1"), wanted);
            assert_eq!(unique("c"), "conf.example/c:latest");
            // What the cache erases is erased in registries.conf too.
            let b = if wanted.starts_with("conf") { "conf.example/b:latest" } else { "s.example/b:latest" };
            assert_eq!(unique("b"), b);
        }
        let explicit = RegistriesConfSource::Explicit(root.join("etc/containers/registries.conf"));
        let conf = RegistriesConf::load(&explicit).unwrap();
        assert_eq!(
            conf.resolve_unique("a", ShortNames::AliasesOnly).unwrap().to_string(),
            "conf.example/a:latest"
        );
    }

    // Rules N-2, T-23.
    #[test]
    fn a_broken_cache_is_an_error_for_short_names_only() {
        let tmp = TempDir::new().unwrap();
        let path = tmp.path().join("var/cache/containers/short-name-aliases.conf");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for content in ["[aliases]\na = 'b'\n", "x", ""] {
            if content.is_empty() {
                fs::remove_file(&path).unwrap();
                symlink("/nowhere/at/all", &path).unwrap();
            } else {
                fs::write(&path, content).unwrap();
            }
            let environment = Environment { root: tmp.path().to_owned(), uid: 0, user: None };
            let conf = RegistriesConf::load(&RegistriesConfSource::Search(environment)).unwrap();
            assert_eq!(places(&conf, "a.b/x:1"), ["a.b/x:1"]);
            let error = conf.resolve_short_name("a").unwrap_err();
            assert_eq!(error.code(), Code::RegistriesConfInvalid);
            assert!(error.to_string().contains("/short-name-aliases.conf"), "{error}");
        }
    }
}
