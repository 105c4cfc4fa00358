//! The policies of a publisher's manual, with a user name filled in, on images as that publisher signs them.

use vouchd::config::Environment;

use crate::cosign3::{Api, World, build, of_image, verdict};
use crate::signer::{Names, San};
use crate::support::{skip, write};

pub(crate) const STRICT: &str = include_str!("../manual/strict.json");
pub(crate) const PERMISSIVE: &str = include_str!("../manual/permissive.json");
pub(crate) const VARIANTS: &str = include_str!("../manual/variants.json");

const WORKFLOW: &str = "https://github.com/acme/vespera/.github/workflows/build.yml@refs/heads/main";

/// A build of acme/vespera, with some extensions changed.
fn vespera(changes: &[(u64, &str)], san: &'static str) -> Names {
    let usual = [(12, "https://github.com/acme/vespera"), (18, WORKFLOW)];
    build(&[changes, &usual].concat(), san)
}

/// Who signed, and how it is stored.
enum Signed {
    Nobody,
    Attached(&'static str, Names),
    Bundled(Names),
}

/// The verdict on an image of that name in the registry of the manual.
async fn judge(policy: &str, image: &str, signed: &Signed, with_our_root: bool) -> String {
    let mut world = World { api: Api::Present, ..World::new() };
    match signed {
        Signed::Nobody => {}
        Signed::Attached(name, names) => world.attach(name, names, |_, _| {}),
        Signed::Bundled(names) => drop(world.signed(&of_image(), names)),
    }
    let server = world.server().await;
    let registries =
        format!("[[registry]]\nprefix = \"ghcr.io\"\nlocation = \"{}\"\n", server.image().domain());
    if with_our_root {
        let root = world.rig.dir.path().join("host");
        write(root.join("etc/vouchd/trusted_root.json"), world.sigstore.trusted_root().to_string());
        world.host = Environment { root, uid: 0, user: None };
    }
    verdict(world.report_on(&format!("docker://ghcr.io/{image}"), policy, &registries).await)
}

#[tokio::test]
async fn the_policies_of_the_manual_accept_what_the_publisher_signs_and_nothing_else() {
    if !nix::unistd::geteuid().is_root() {
        return skip("the trusted root of a host must be root's");
    }
    let good = || vespera(&[], WORKFLOW);
    let bundled = |changes: &[(u64, &str)]| Signed::Bundled(vespera(changes, WORKFLOW));
    let fork = "https://github.com/evil/vespera/.github/workflows/build.yml@refs/heads/main";
    let mut person = good();
    person.san = San::Email("jane@acme.example");
    // What all three say of an image that they name.
    for (policy, image) in [
        (STRICT, "acme/vespera-nvidia:1"),
        (STRICT, "acme/vespera-dx-nvidia:1"),
        (PERMISSIVE, "acme/anything:1"),
        (VARIANTS, "acme/vespera:1"),
        (VARIANTS, "acme/vespera-dx-nvidia-open:1"),
    ] {
        let name = format!("ghcr.io/{}", image.trim_end_matches(":1"));
        let name: &'static str = name.leak();
        for (what, signed, wanted) in [
            ("cosign 3", Signed::Bundled(good()), "allowed"),
            ("cosign 2", Signed::Attached(name, good()), "allowed"),
            ("cosign 2, another image", Signed::Attached("ghcr.io/acme/other", good()), "identity-mismatch"),
            ("nobody", Signed::Nobody, "unsigned"),
            ("a tag", bundled(&[(14, "refs/tags/v1")]), "allowed"),
            (
                "a fork",
                Signed::Bundled(build(&[(12, "https://github.com/evil/vespera")], fork)),
                "identity-mismatch-repository",
            ),
            ("a caller", bundled(&[(12, "https://github.com/evil/os")]), "identity-foreign-caller"),
            ("a pull request", bundled(&[(14, "refs/pull/1/merge")]), "identity-mismatch-ref"),
            ("its event", bundled(&[(20, "pull_request_target")]), "identity-mismatch-trigger"),
            ("another issuer", bundled(&[(8, "https://issuer.example")]), "identity-mismatch-issuer"),
            ("a person", Signed::Bundled(person.clone()), "identity-mismatch-subject"),
        ] {
            assert_eq!(judge(policy, image, &signed, true).await, wanted, "{image}: {what}");
        }
        // As it stands there, with the root of this host, for which nobody here can sign.
        for (signed, wanted) in [
            (Signed::Nobody, "unsigned"),
            (Signed::Bundled(good()), "log-entry-invalid"),
            (Signed::Attached(name, good()), "log-entry-invalid"),
        ] {
            assert_eq!(judge(policy, image, &signed, false).await, wanted, "{image}");
        }
    }
    // What they do not name. `insecureAcceptAnything` is no signature, where one is asked for as ostree does.
    for (policy, image, wanted) in [
        (STRICT, "acme/vespera:1", "rejected-by-policy"),
        (STRICT, "acme/vespera-nvidia-open:1", "rejected-by-policy"),
        (STRICT, "evil/vespera-nvidia:1", "rejected-by-policy"),
        (VARIANTS, "acme/vespera-dx2:1", "rejected-by-policy"),
        (PERMISSIVE, "other/image:1", "signature-required"),
        (PERMISSIVE, "acme2/image:1", "signature-required"),
    ] {
        assert_eq!(judge(policy, image, &Signed::Bundled(good()), false).await, wanted, "{image}");
    }
}
