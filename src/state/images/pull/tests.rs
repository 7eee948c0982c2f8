//! Sets are pulled from a factory on loopback, on its good days and on its bad ones.

use std::sync::Arc;

use self::factory::{Factory as TestFactory, Fault, Offers, Tls};
use super::*;
use crate::http_client::download::Failure;
use crate::pure::catalog::image_set::SetId;
use crate::pure::catalog::talos::TalosArch;
use crate::pure::talos_schematic::Schematic;
use crate::state::images::store::Rest;

#[path = "../../../../tests/support/factory.rs"]
#[expect(dead_code, reason = "the lab uses the rest of it")]
mod factory;

const LINE: &str = "talos.platform=metal console=tty0 from=factory\n";
/// No real second is waited.
const AT_ONCE: Patience = Patience { attempts: 3, first: Duration::from_millis(1) };

fn offers() -> Offers {
    let file = |name: &str, content: Vec<u8>| (name.to_owned(), content.into());
    Offers {
        files: [
            file("kernel-amd64", b"kernel ".repeat(10_000)),
            file("initramfs-amd64.xz", b"initramfs ".repeat(100_000)),
            file("cmdline-metal-amd64", LINE.into()),
        ]
        .into(),
        versions: ["v1.10.0", "v1.11.2", "v1.12.0-beta.0", "v1.11.10", "nonsense"]
            .map(str::to_owned)
            .into(),
        extensions: ["siderolabs/bnx2-bnx2x", "siderolabs/intel-ucode"].map(str::to_owned).into(),
        ..Offers::default()
    }
}

/// A store, and what is wanted of a factory.
struct Scene {
    folder: tempfile::TempDir,
    recipe: Recipe,
}

impl Scene {
    fn of(factory: &TestFactory) -> Self {
        let recipe = Recipe {
            factory: factory.url.parse().unwrap(),
            ca: None,
            schematic: Schematic::of_extensions(&["siderolabs/bnx2-bnx2x".to_owned()]),
            version: Some("1.11.2".parse().unwrap()),
            arch: TalosArch::Amd64,
        };
        Self { folder: tempfile::tempdir().unwrap(), recipe }
    }

    fn store(&self) -> Store {
        Store::new(self.folder.path())
    }

    async fn pull(&self) -> Result<Pulled, PullError> {
        self.pull_as(Ask::Missing).await
    }

    async fn pull_as(&self, ask: Ask) -> Result<Pulled, PullError> {
        let origin = Origin::Factory(self.recipe.clone());
        let wanted = Wanted { set: origin.set(), origin };
        pull(&self.store(), &wanted, (ask, AT_ONCE), &mut |_| {}).await
    }

    /// Pulls it; what came is what it should be.
    async fn comes(&self) -> Manifest {
        let pulled = self.pull().await.unwrap();
        assert_eq!(pulled.stored.verify(), Ok(()));
        pulled.stored.manifest
    }

    /// Why it fails. Nothing of it can be seen in the store.
    async fn fails(&self) -> String {
        let error = self.pull().await.unwrap_err();
        assert!(self.store().all().is_empty());
        error.to_string()
    }
}

#[tokio::test]
async fn an_image_comes_by_version_and_extensions_and_nothing_else_is_told_to_the_factory() {
    let factory = TestFactory::start(offers());
    let scene = Scene::of(&factory);
    let mut told = Vec::new();
    let origin = Origin::Factory(scene.recipe.clone());
    let wanted = Wanted { set: origin.set(), origin };
    let mut report = |progress| told.push(progress);
    let asked = (Ask::Missing, AT_ONCE);
    let pulled = pull(&scene.store(), &wanted, asked, &mut report).await.unwrap();
    assert!(pulled.is_new && pulled.doubts.is_empty());
    assert_eq!(pulled.stored.verify(), Ok(()));
    let manifest = &pulled.stored.manifest;
    assert_eq!(manifest.what(), "Talos v1.11.2 amd64 with siderolabs/bnx2-bnx2x");
    assert_eq!(manifest.len(), 1_070_000 + LINE.len() as u64);
    let last: &Progress = told.last().unwrap();
    assert_eq!((last.received, last.total), (manifest.len(), Some(manifest.len())));
    assert!(told.is_sorted_by_key(|progress| progress.received), "{told:?}");

    let id = scene.recipe.schematic.id();
    let files = ["cmdline-metal-amd64", "kernel-amd64", "initramfs-amd64.xz"];
    let images = files.map(|file| format!("/image/{id}/v1.11.2/{file}"));
    assert_eq!(factory.paths("GET"), images);
    let posted: Vec<_> = factory.asked().into_iter().filter(|it| it.method == "POST").collect();
    assert_eq!((posted.len(), &posted[0].body), (1, &scene.recipe.schematic.yaml()));

    let again = scene.pull().await.unwrap();
    assert!(!again.is_new);
    assert_eq!(factory.paths("GET").len(), 3, "what is here is not fetched again");
}

#[tokio::test]
async fn the_newest_stays_the_same_until_it_is_asked_for_again() {
    let factory = TestFactory::start(offers());
    let mut scene = Scene::of(&factory);
    scene.recipe.version = None;
    let version = |pulled: Pulled| pulled.stored.manifest.version.unwrap();
    assert_eq!(version(scene.pull().await.unwrap()), "v1.11.10", "the newest that is stable");
    factory.change(|offers| offers.versions.push("v1.11.11".into()));
    assert_eq!(version(scene.pull().await.unwrap()), "v1.11.10");
    factory.go_away();
    assert_eq!(version(scene.pull().await.unwrap()), "v1.11.10", "without the factory too");
    let error = scene.pull_as(Ask::Newest).await.unwrap_err().to_string();
    assert!(error.contains("/versions: "), "{error}");
    let factory = TestFactory::start(offers());
    factory.change(|offers| offers.versions = vec!["v1.12.0-beta.0".into()]);
    let mut other = Scene::of(&factory);
    other.recipe.version = None;
    let told = other.fails().await;
    assert_eq!(told, format!("{}/ names no release of Talos that is no pre-release", factory.url));
}

#[tokio::test]
async fn the_newest_is_fetched_beside_the_one_before_when_it_is_asked_for() {
    let factory = TestFactory::start(offers());
    let mut scene = Scene::of(&factory);
    scene.recipe.version = None;
    scene.pull().await.unwrap();
    factory.change(|offers| offers.versions.push("v1.12.0".into()));
    let pulled = scene.pull_as(Ask::Newest).await.unwrap();
    assert_eq!(pulled.stored.manifest.version.as_deref(), Some("v1.12.0"));
    let latest = scene.recipe.set();
    assert_eq!(scene.store().pinned(&latest).as_deref(), Some("v1.12.0"));
    assert!(scene.store().find(&scene.recipe.set_of("v1.11.10")).is_some());
}

#[tokio::test]
async fn the_factorys_own_id_is_used_and_the_difference_is_told() {
    let factory = TestFactory::start(offers());
    let id = "ab".repeat(32);
    factory.change(|offers| offers.other_id = Some("ab".repeat(32)));
    let scene = Scene::of(&factory);
    let pulled = scene.pull().await.unwrap();
    assert_eq!(pulled.stored.manifest.schematic.as_deref(), Some(&*id));
    assert!(factory.paths("GET").iter().all(|path| path.contains(&id)));
    let expected = scene.recipe.schematic.id();
    assert_eq!(
        pulled.doubts,
        [format!(
            "its factory names the schematic {id}, and {expected} was expected: the factory's is used"
        )]
    );
}

#[tokio::test]
async fn an_extension_or_a_version_that_is_not_there_is_told_with_what_is() {
    let factory = TestFactory::start(offers());
    let mut scene = Scene::of(&factory);
    scene.recipe.version = Some("1.11.3".parse().unwrap());
    let url = &factory.url;
    assert_eq!(
        scene.fails().await,
        format!("{url}/ has no Talos v1.11.3; it has v1.11.10, v1.11.2")
    );
    scene.recipe.version = Some("1.11.2".parse().unwrap());
    scene.recipe.schematic = Schematic::of_extensions(&["siderolabs/bnx2".to_owned()]);
    factory.fault("/image/", Fault::Status(400, "", "extension not found\n"), 9);
    assert_eq!(
        scene.fails().await,
        format!(
            "{url}/ has no extension `siderolabs/bnx2` (did you mean `siderolabs/bnx2-bnx2x`?) for Talos v1.11.2"
        )
    );
    factory.change(|offers| offers.extensions.push("siderolabs/bnx2".into()));
    let told = scene.fails().await;
    assert!(told.ends_with("the server answers 400 Bad Request: extension not found"), "{told}");
}

#[tokio::test]
async fn a_redirect_leads_to_the_store_and_never_off_a_safe_way() {
    let store = TestFactory::start(offers());
    let factory = TestFactory::start(offers());
    factory.change(|offers| offers.store = Some(format!("{}/bucket", store.url)));
    Scene::of(&factory).comes().await;
    assert_eq!(store.paths("GET").len(), 3);

    let tls = Tls::new("127.0.0.1");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let factory = TestFactory::on(listener, offers(), Some(&tls));
    let mut scene = Scene::of(&factory);
    let told = scene.fails().await;
    assert!(
        told.contains("name the certificate of its CA: `factory: { url: …, ca: … }`"),
        "{told}"
    );
    let ca = scene.folder.path().join("ca.pem");
    fs::write(&ca, &tls.ca).unwrap();
    scene.recipe.ca = Some(ca.clone());
    factory.fault("/image/", Fault::Redirect(format!("{}/bucket", store.url)), 9);
    let told = scene.fails().await;
    assert!(told.contains("the server leads from https:// to where anybody could"), "{told}");
    factory.mend();
    scene.comes().await;
    fs::write(&ca, "no certificate").unwrap();
    let none = Scene { recipe: scene.recipe.clone(), folder: tempfile::tempdir().unwrap() };
    let told = none.fails().await;
    assert!(told.starts_with(&format!("{}: it holds no certificate", ca.display())), "{told}");
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_stays_is_told_with_its_reason() {
    for (status, headers) in [(429, "Retry-After: 0\r\n"), (500, ""), (502, ""), (503, "")] {
        let factory = TestFactory::start(offers());
        factory.fault("initramfs", Fault::Status(status, headers, "busy\n"), 2);
        Scene::of(&factory).comes().await;
    }
    let factory = TestFactory::start(offers());
    let scene = Scene::of(&factory);
    factory.fault("initramfs", Fault::Status(500, "", "<html>no</html>"), 99);
    let told = scene.fails().await;
    assert!(
        told.ends_with("the server answers 500 Internal Server Error (tried 3 times)"),
        "{told}"
    );
    factory.mend();
    factory.fault("schematics", Fault::Status(402, "", "pay\n"), 99);
    let told = scene.fails().await;
    let expected = "the server answers 402 Payment Required: pay; this factory gives that to paying customers only";
    assert!(told.ends_with(expected), "{told}");
    factory.mend();
    factory.fault("initramfs", Fault::Status(429, "Retry-After: 0\r\n", "slow down\n"), 99);
    let told = scene.fails().await;
    assert!(told.contains("the server answers 429 Too Many Requests: slow down"), "{told}");
    factory.mend();
    scene.pull().await.unwrap();
    let cmdlines = factory.paths("GET").into_iter().filter(|path| path.contains("cmdline"));
    assert_eq!(cmdlines.count(), 1, "what is whole is not fetched again");
}

#[tokio::test]
async fn a_connection_that_is_cut_is_gone_on_with_where_the_server_can_and_else_begun_anew() {
    for has_ranges in [true, false] {
        let factory = TestFactory::start(offers());
        factory.change(|offers| offers.has_ranges = has_ranges);
        for after in [300_000, 250_000] {
            factory.fault("initramfs", Fault::Cut(after), 1);
        }
        Scene::of(&factory).comes().await;
        let asked = factory.asked().into_iter();
        let asked = asked.filter(|it| it.method == "GET" && it.path.contains("initramfs"));
        let ranges: Vec<Option<String>> =
            asked.map(|asked| asked.headers.get("range").cloned()).collect();
        let range = |from: &str| has_ranges.then(|| format!("bytes={from}-"));
        assert_eq!(ranges, [None, range("300000"), range("550000")]);
    }
}

#[tokio::test]
async fn a_slow_body_comes_whole_and_a_wrong_length_is_no_image() {
    let factory = TestFactory::start(offers());
    factory.fault("initramfs", Fault::Slow(100_000, Duration::from_millis(5)), 1);
    Scene::of(&factory).comes().await;

    let factory = TestFactory::start(offers());
    factory.fault("initramfs", Fault::Length(2_000_000), 99);
    let scene = Scene::of(&factory);
    let told = scene.fails().await;
    assert!(told.contains("the connection ended after 1000000 of 2000000 bytes"), "{told}");
    assert!(matches!(&scene.store().rest()[..], [Rest::Begun(_)]));

    let factory = TestFactory::start(offers());
    factory.fault("initramfs", Fault::Short(900_000), 99);
    let told = Scene::of(&factory).fails().await;
    let expected = "came with 900000 bytes, and its server said before that it has 1000000";
    assert!(told.ends_with(expected), "{told}");
}

#[tokio::test]
async fn a_factory_that_is_not_there_is_told_with_what_may_help() {
    let factory = TestFactory::start(offers());
    factory.go_away();
    let told = Scene::of(&factory).fails().await;
    assert!(told.starts_with(&format!("cannot fetch {}/schematics: ", factory.url)), "{told}");
    assert!(told.contains("HTTPS_PROXY"), "{told}");
}

#[tokio::test]
async fn a_kernel_line_that_is_none_is_no_image_and_an_odd_one_is_told() {
    for (line, why) in [
        ("one\ntwo\n", "it is not one line of text"),
        (" \n", "it is not one line of text"),
        ("a\x1b[2J", "it is not one line of text"),
    ] {
        let factory = TestFactory::start(offers());
        let line = Arc::new(line.as_bytes().to_vec());
        factory.change(|offers| drop(offers.files.insert("cmdline-metal-amd64".into(), line)));
        let told = Scene::of(&factory).fails().await;
        assert!(told.ends_with(why), "{told}");
    }
    let factory = TestFactory::start(offers());
    let line = Arc::new(b"console=tty0\n".to_vec());
    factory.change(|offers| drop(offers.files.insert("cmdline-metal-amd64".into(), line)));
    let pulled = Scene::of(&factory).pull().await.unwrap();
    assert!(pulled.doubts[0].starts_with("its kernel line does not say talos.platform=metal"));
}

#[tokio::test]
async fn a_file_of_an_address_comes_with_the_sum_that_the_config_says_or_not_at_all() {
    let factory = TestFactory::start(offers());
    let url: Url =
        format!("{}/image/x/v1.11.2/kernel-amd64?token=hush", factory.url).parse().unwrap();
    let content = b"kernel ".repeat(10_000);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let sum = Sha256::of(&content);
    factory.change(|offers| {
        let kernel = offers.files.get("kernel-amd64").cloned().unwrap();
        offers.files.insert("kernel-amd64?token=hush".into(), kernel);
    });
    let get = async |sha256: Option<Sha256>| {
        let origin = Origin::Web(url.clone(), sha256);
        let wanted = Wanted { set: origin.set(), origin };
        pull(&store, &wanted, (Ask::Missing, AT_ONCE), &mut |_| {}).await
    };
    let told = get(Some(Sha256::of(b"other"))).await.unwrap_err();
    let PullError::Fetch(FetchError { failure, .. }) = &told else {
        panic!("{told}");
    };
    assert_eq!(*failure, Failure::WrongSum { found: sum, expected: Sha256::of(b"other") });
    assert!(!told.to_string().contains("hush"), "{told}");
    for sha256 in [Some(sum), None] {
        let pulled = get(sha256).await.unwrap();
        assert_eq!(fs::read(pulled.stored.folder.join(FILE)).unwrap(), content);
        assert!(!pulled.stored.manifest.from.contains("hush"));
    }
    assert_eq!(store.all().len(), 2);
    let sets: Vec<SetId> = store.all().into_iter().map(|stored| stored.set).collect();
    assert!(sets.iter().all(|set| set.as_str().starts_with("urls/")), "{sets:?}");
}
