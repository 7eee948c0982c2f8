//! `reveille init`, `completions` and `man`, as an operator runs them: the real binary, its exact output,
//! the files that it leaves, and a real terminal.
#![expect(clippy::unwrap_used, reason = "a test stops at what is not there")]

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::termios::{LocalFlags, tcgetattr};
use tempfile::TempDir;

use terminal::Session;

mod terminal;

/// No real one.
const TOKEN: &str = "hushw7uVuW3zbVKIYQuzEcyetAHeYMeo5q2L9RvkAVfC";

fn pasted() -> String {
    format!(
        "siderolink.api=https://lab.omni.example?grpc_tunnel=true&jointoken={TOKEN} \
         talos.events.sink=[fdae:41e4:649b:9303::1]:8090 \
         talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092"
    )
}

#[derive(Debug, PartialEq, Eq)]
struct Said {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.env_remove("REVEILLE_CONFIG").env("STATE_DIRECTORY", folder.join("state"));
    command.current_dir(folder).args(arguments);
    command
}

/// Runs it with this on standard input. Whatever it says shows no token.
fn reveille(folder: &Path, arguments: &[&str], input: &str) -> Said {
    let mut command = command(folder, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may not want to read it.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(!stdout.contains("hush") && !stderr.contains("hush"), "{stdout}{stderr}");
    Said { stdout, stderr, code: output.status.code() }
}

/// What it says when it writes nothing.
fn refusal(folder: &Path, arguments: &[&str], input: &str) -> String {
    let before = names(folder);
    let said = reveille(folder, &[&["init", "--interface", "lo"], arguments].concat(), input);
    assert_eq!((said.stdout.as_str(), said.code), ("", Some(1)), "{}", said.stderr);
    assert_eq!(names(folder), before, "nothing was left");
    said.stderr
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o777
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

const LAST_STEPS: &str = "\
`reveille nbps` lists what firmware loads first, `reveille nbps fetch` gets the newest.
2. `reveille check` says what is wrong or missing.
3. `sudo reveille serve` serves: as root, for ports 67 and 69.
4. On OPNsense set nothing, and remove what tells machines another boot server: \"Network booting\" of ISC
   DHCP, \"Next server\" and \"TFTP\" fields of Kea, \"DHCP boot\" of Dnsmasq. `sudo reveille doctor --dhcp`
   asks the LAN, and says what else is in the way.
";

#[test]
fn with_flags_it_asks_nothing_and_the_token_has_a_file_of_its_own() {
    let folder = folder();
    let folder = folder.path();
    fs::write(folder.join("linux"), "kernel").unwrap();
    fs::write(folder.join("initrd"), "initrd").unwrap();
    fs::write(folder.join("args"), pasted()).unwrap();
    let said = reveille(
        folder,
        &[
            "init",
            "--interface",
            "lo",
            "--omni-args",
            "args",
            "--omni-name",
            "lab",
            "--kernel",
            "./linux",
            "--initrd",
            "./initrd",
            "--talos-version",
            "1.11.2",
            "--machine",
            "oden=5c:f3:fc:00:00:01",
            "--machine",
            "balder=5c:f3:fc:00:00:02,disk",
        ],
        "",
    );
    let stdout = format!(
        "wrote ./config.yaml\nwrote ./secrets/lab.token, mode 0600\n\nNext:\n1. {LAST_STEPS}"
    );
    assert_eq!(said, Said { stdout, stderr: String::new(), code: Some(0) });
    let token = folder.join("secrets/lab.token");
    assert_eq!(fs::read_to_string(&token).unwrap(), format!("{TOKEN}\n"));
    assert_eq!((mode(&token), mode(&folder.join("secrets"))), (0o600, 0o700));
    assert_eq!(names(&folder.join("secrets")), ["lab.token"]);
    assert_eq!(names(folder), ["args", "config.yaml", "initrd", "linux", "secrets", "state"]);

    let config = fs::read_to_string(folder.join("config.yaml")).unwrap();
    assert!(!config.contains("hush"), "{config}");
    for line in [
        "  interfaces: [lo]              # where machines boot: this host is 127.0.0.1/8 there",
        "    api: https://lab.omni.example",
        "    join_token: { file: ./secrets/lab.token } # the secret has a file of its own, mode 0600",
        "    tunnel: true                # true where WireGuard's UDP does not get out",
        "    talos: { version: v1.11.2 } # which release these files are: it decides Talos' own arguments",
        "    mac: 5c:f3:fc:00:00:02",
        "    profile: disk",
    ] {
        assert!(config.lines().any(|own| own == line), "no `{line}` in\n{config}");
    }
    // What it wrote is read by another command without a complaint about more than NBPs.
    let said = reveille(folder, &["nbps"], "");
    assert!(said.stderr.lines().all(|line| line.contains(": server.nbps")), "{}", said.stderr);
}

#[test]
fn what_is_there_stays_unless_force_says_otherwise() {
    let folder = folder();
    let folder = folder.path();
    fs::write(folder.join("config.yaml"), "# mine\n").unwrap();
    assert_eq!(
        refusal(folder, &["--omni-args", "-"], &pasted()),
        "reveille: ./config.yaml is there already; --force replaces it\n"
    );
    fs::create_dir_all(folder.join("etc/secrets")).unwrap();
    fs::set_permissions(folder.join("etc/secrets"), Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join("etc/secrets/homelab.token"), "mine\n").unwrap();
    let elsewhere = ["--output", "etc/config.yaml", "--omni-args", "-"];
    assert_eq!(
        refusal(folder, &elsewhere, &pasted()),
        "reveille: etc/secrets/homelab.token is there already; --force replaces it\n"
    );
    assert_eq!(names(&folder.join("etc")), ["secrets"]);
    let forced = [&["init", "--interface", "lo", "--force"], &elsewhere[..]].concat();
    let said = reveille(folder, &forced, &pasted());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let token = folder.join("etc/secrets/homelab.token");
    assert_eq!((fs::read_to_string(&token).unwrap(), mode(&token)), (format!("{TOKEN}\n"), 0o600));
    assert_eq!(names(&folder.join("etc/secrets")), ["homelab.token"]);
    let note = "note: etc/secrets has mode 0755: `chmod 700 etc/secrets`\n";
    let rest = said.stderr.strip_prefix(note).unwrap();
    assert_eq!(rest, "", "nothing is wrong with it");
}

#[test]
fn permits_the_first_registry_and_a_config_that_is_replaced_keeps_its_own() {
    let folder = folder();
    let folder = folder.path();
    let init = ["init", "--interface", "lo", "--force"];
    assert_eq!(reveille(folder, &init, "").code, Some(0));
    let state = || {
        let config = fs::read_to_string(folder.join("config.yaml")).unwrap();
        config.lines().find(|line| line.starts_with("  state: ")).unwrap().to_owned()
    };
    assert!(state().starts_with("  state: ./state "), "{}", state());
    assert_eq!(names(&folder.join("state")), ["new"]);

    fs::create_dir_all(folder.join("kept/db")).unwrap();
    fs::write(folder.join("kept/db/registry.db"), "").unwrap();
    fs::write(folder.join("config.yaml"), "server: { state: ./kept }\n").unwrap();
    assert_eq!(reveille(folder, &init, "").code, Some(0));
    assert!(state().contains(&format!("{} ", folder.join("kept").display())), "{}", state());
    assert_eq!(names(&folder.join("kept")), ["db"], "it has a registry");
}

#[test]
fn an_address_and_a_token_do_as_well() {
    let folder = folder();
    let folder = folder.path();
    let said = reveille(
        folder,
        &[
            "init",
            "--interface",
            "lo",
            "--omni-api",
            "https://lab.omni.example",
            "--omni-token",
            "-",
        ],
        &format!("{TOKEN}\n"),
    );
    assert_eq!((said.stderr.as_str(), said.code), ("", Some(0)));
    let order = "`reveille boot MAC --profile talos`";
    assert!(said.stdout.contains(order), "{}", said.stdout);
    // NBPs and images are fetched later.
    let checked = reveille(folder, &["check"], "");
    assert!(
        checked.stdout.ends_with(": nothing is wrong; 0 machines, 0 groups, 1 profile, 1 image\n"),
        "{checked:?}"
    );
    assert_eq!((checked.stderr.as_str(), checked.code), ("", Some(0)));
    let config = fs::read_to_string(folder.join("config.yaml")).unwrap();
    assert!(config.contains("    api: https://lab.omni.example\n"), "{config}");
    let token = fs::read_to_string(folder.join("secrets/homelab.token")).unwrap();
    assert_eq!(token, format!("{TOKEN}\n"));
}

#[test]
fn what_cannot_be_used_is_told_and_never_repeated() {
    let folder = folder();
    let folder = folder.path();
    let only = "it takes the path of a file with";
    for (arguments, input, told) in [
        (
            &["--omni-args", "siderolink.api=https://x?jointoken=hush"][..],
            "",
            format!("--omni-args: there is no such file; {only} Omni's kernel parameters, or `-` for standard input"),
        ),
        (
            &["--omni-api", "https://x", "--omni-token", "hush"],
            "",
            format!("--omni-token: there is no such file; {only} the join token, or `-` for standard input"),
        ),
        (
            &["--omni-api", "https://x", "--omni-token", "-"],
            "siderolink.api=https://x?jointoken=hush",
            "--omni-token: it holds more than the token; give all that Omni copies to --omni-args".to_owned(),
        ),
        (
            &["--omni-api", "https://x?jointoken=hush", "--omni-token", "-"],
            "hush",
            "--omni-api: the address ends before its `?`: the token goes into a file of its own".to_owned(),
        ),
        (
            &["--omni-args", "-"],
            "siderolink.api=ftp://x?jointoken=v2:hush",
            "--omni-args: it cannot be used: the address in `siderolink.api` starts with something else than https://, http:// or grpc://; the join token starts with `v2:`, but what follows is not the JSON with `extra_data` and `signature` that Omni makes: copy it whole".to_owned(),
        ),
        (
            &["--machine", "oden=5c:f3:fc:00:00:01,talso"],
            "",
            "machine oden: there is no profile `talso` in what is written; there is: talos, disk".to_owned(),
        ),
        (
            &["--output", "no/such/config.yaml"],
            "",
            "cannot write no/such/config.yaml: No such file or directory (os error 2)".to_owned(),
        ),
    ] {
        assert_eq!(refusal(folder, arguments, input), format!("reveille: {told}\n"));
    }
    let said = reveille(folder, &["init", "--interface", "eth99"], "");
    assert!(
        said.stderr.starts_with(
            "reveille: --interface: there is no interface `eth99` with an IPv4 address; there is: "
        ),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("lo (127.0.0.1/8)"), "{}", said.stderr);
    for usage in [
        &["init", "--omni-args", "-", "--omni-token", "-"][..],
        &["init", "--omni-token", "-"],
        &["init", "--kernel", "x"],
        &["init", "--omni-name", "../x"],
        &["init", "--talos-version", "newest"],
    ] {
        assert_eq!(reveille(folder, usage, "").code, Some(2), "{usage:?}");
    }
    assert_eq!(names(folder), Vec::<String>::new());
}

/// It runs before a terminal of its own.
fn before_a_terminal(folder: &Path, arguments: &[&str]) -> Session {
    Session::start(command(folder, arguments))
}

/// Waits for the end. Whatever was shown shows no token.
fn ended(session: Session) -> (String, Option<i32>) {
    let (shown, code) = session.ended();
    assert!(!shown.contains("hush"), "the token was shown");
    (shown, code)
}

fn echoes(session: &Session) -> bool {
    let flags = tcgetattr(&session.terminal).unwrap().local_flags;
    flags.contains(LocalFlags::ECHO | LocalFlags::ICANON)
}

#[test]
fn on_a_terminal_it_asks_for_what_matters_and_what_is_pasted_is_not_shown() {
    let folder = folder();
    let folder = folder.path();
    let mut session = before_a_terminal(folder, &["init"]);
    session.answer("Interface that machines boot on", "eth99\n");
    session.answer("there is no interface `eth99`", "lo\n");
    session.answer("Shall machines join Sidero Omni? [Y/n]: ", "\n");
    session
        .answer("It is not shown: ", "siderolink.api=https://x?jointoken=hush&jointoken=hush\n\n");
    session.answer("  `siderolink.api` has two join tokens: keep one", "");
    // An empty line in its middle does not end it: what follows would be echoed.
    let [api, rest] =
        pasted().splitn(2, ' ').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
    session.answer(
        "It is not shown: ",
        &format!("{}\r\r{api}\r\r{}\r\r", "console=tty0", rest.replace(' ', "\r")),
    );
    session.answer(
        "Omni at https://lab.omni.example, through a gRPC tunnel; the join token is plain.",
        "",
    );
    session.answer("note: what else stands there (1 of them) is not used", "");
    session.answer("Talos version [latest]: ", "newest\n");
    session.answer("`newest` is not a Talos version; write it like v1.11.2", "v1.13.0\n");
    session.answer("System extensions, as siderolabs/bnx2-bnx2x (Enter: none): ", "bnx2\n");
    session.answer(
        "`bnx2` is no extension; write it like siderolabs/bnx2-bnx2x",
        "siderolabs/bnx2-bnx2x, siderolabs/intel-ucode\n",
    );
    session.answer("Name of the first machine (Enter: none yet): ", "oden\n");
    session.answer("MAC address of oden: ", "5c:f3:fc:00:00\n");
    session.answer("`5c:f3:fc:00:00` is not a MAC address", "5C-F3-FC-00-00-01\n");
    session.answer("./secrets/homelab.token, mode 0600:\r\n\r\n  *** (plain)", "");
    assert_eq!(names(folder), Vec::<String>::new(), "nothing is written before it was agreed to");
    session.answer("Write this? [Y/n]: ", "\n");
    let (shown, code) = ended(session);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("\nwrote ./secrets/homelab.token, mode 0600\n"), "{shown}");
    assert!(shown.contains("5C-F3-FC-00-00-01\n"), "what is no secret is echoed\n{shown}");
    let token = fs::read_to_string(folder.join("secrets/homelab.token")).unwrap();
    assert_eq!(token, format!("{TOKEN}\n"));
    let config = fs::read_to_string(folder.join("config.yaml")).unwrap();
    for line in [
        "  interfaces: [lo] ",
        "      version: v1.13.0 ",
        "      extensions: [siderolabs/bnx2-bnx2x, siderolabs/intel-ucode] ",
        "    mac: 5c:f3:fc:00:00:01",
    ] {
        assert!(config.contains(&format!("\n{line}")), "no `{line}` in\n{config}");
    }
}

#[test]
fn who_breaks_off_leaves_nothing_and_has_the_echo_again() {
    let folder = folder();
    let folder = folder.path();
    let asked = ["init", "--interface", "lo"];
    for (question, answer, told) in [
        ("It is not shown: ", "hush\x03", "interrupted; nothing was written\n"),
        (
            "Shall machines join Sidero Omni? [Y/n]: ",
            "\x04",
            "not all questions were answered; nothing was written\n",
        ),
    ] {
        let mut session = before_a_terminal(folder, &asked);
        if question.starts_with("It") {
            session.answer("Shall machines join Sidero Omni? [Y/n]: ", "y\n");
        }
        session.answer(question, answer);
        session.answer(told.trim_end(), "");
        assert!(echoes(&session));
        let (shown, code) = ended(session);
        assert!(shown.ends_with(told), "{shown}");
        assert_eq!(code, Some(1));
    }
    let mut session = before_a_terminal(folder, &asked);
    session.answer("Shall machines join Sidero Omni? [Y/n]: ", "n\n");
    session.answer("Talos version [latest]: ", "\n");
    session.answer("System extensions, as siderolabs/bnx2-bnx2x (Enter: none): ", "\n");
    session.answer("Name of the first machine (Enter: none yet): ", "\n");
    session.answer("Write this? [Y/n]: ", "n\n");
    let (shown, code) = ended(session);
    assert!(shown.ends_with("reveille: nothing was written\n"), "{shown}");
    assert_eq!((code, names(folder)), (Some(1), vec![]));

    let mut yes =
        before_a_terminal(folder, &["init", "--interface", "lo", "--yes", "--omni-args", "-"]);
    yes.answer("It is not shown: ", &format!("{}\n\n", pasted()));
    let (shown, code) = ended(yes);
    assert!(!shown.contains("?"), "it asks nothing\n{shown}");
    assert_eq!(
        (code, names(folder)),
        (Some(0), ["config.yaml", "secrets", "state"].map(str::to_owned).to_vec())
    );
}

#[test]
fn completions_and_manual_pages_are_for_every_command() {
    let folder = folder();
    let folder = folder.path();
    for (shell, start) in
        [("bash", "_reveille() {"), ("zsh", "#compdef reveille"), ("fish", "# Print an optspec")]
    {
        let said = reveille(folder, &["completions", shell], "");
        assert!(said.stdout.starts_with(start), "{}", said.stdout);
        assert!(said.stdout.contains("omni-args"), "{shell}");
        assert_eq!((said.stderr.as_str(), said.code), ("", Some(0)));
    }
    assert_eq!(reveille(folder, &["completions", "csh"], "").code, Some(2));

    let said = reveille(folder, &["man"], "");
    assert!(said.stdout.contains(".TH reveille 1") && said.stdout.contains("reveille\\-init(1)"));
    let said = reveille(folder, &["man", "--output", "man1"], "");
    assert_eq!((said.stderr.as_str(), said.code), ("", Some(0)));
    let written = names(&folder.join("man1"));
    let told: Vec<_> = said.stdout.lines().map(|line| line.trim_start_matches("man1/")).collect();
    assert!(told.contains(&"reveille.1") && told.contains(&"reveille-nbps-fetch.1"), "{told:?}");
    assert_eq!(told.len(), written.len());
    let page = fs::read_to_string(folder.join("man1/reveille-init.1")).unwrap();
    assert!(page.contains("\\-\\-omni\\-args"), "{page}");
}
