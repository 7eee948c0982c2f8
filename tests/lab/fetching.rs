//! What real clients fetch over HTTP, and how the server answers them; TFTP is in `tftp.rs` and
//! `tftp_clients.rs`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::firmware::Firmware;
use crate::support::{Appliance, run};

const NBP: &str = "http://10.77.0.2:8080/nbp/bin-x86_64-efi/snponly.efi";
const SCRIPT: &str = "http://10.77.0.2:8080/boot/52-54-00-77-00-10.ipxe";
const KERNEL: &str = "http://10.77.0.2:8080/images/debian/kernel?mac=52:54:00:77:00:10";

/// The status and the headers of a response, names in lower case.
fn head(firmware: &Firmware, arguments: &[&str]) -> (u16, BTreeMap<String, String>) {
    let output =
        firmware.curl(&[&["--dump-header", "-", "--output", "/dev/null"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let status = text.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {text:?}"));
    let headers = text.lines().skip(1).filter_map(|line| line.trim().split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    (status.parse().unwrap(), headers.collect())
}

#[test]
fn a_script_is_plain_text_with_its_length_and_never_compressed() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        firmware.loads_ipxe();
        let (status, headers) = head(&firmware, &["--header", "Accept-Encoding: gzip", SCRIPT]);
        let script = firmware.fetch(SCRIPT);
        assert_eq!(status, 200);
        assert_eq!(headers["content-length"], script.len().to_string());
        assert!(headers["content-type"].starts_with("text/plain"));
        assert!(!headers.contains_key("content-encoding"));
        assert!(!headers.contains_key("transfer-encoding"));
        assert!(script.starts_with(b"#!ipxe\n"));

        appliance.wait_for("runs its script");
        appliance.wait_for("runs its script");
        let (status, head) = head(&firmware, &["--head", SCRIPT]);
        assert_eq!((status, &head["content-length"]), (200, &headers["content-length"]));
        firmware.fetch(KERNEL);
        appliance.wait_for("fetched debian/kernel");
        let runs = appliance.log().matches("runs its script").count();
        assert_eq!(runs, 2, "a HEAD is no step of a boot");
    });
}

#[test]
fn an_efi_program_has_the_same_headers_for_head_and_get_and_is_never_redirected() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let (status, got) = head(&firmware, &[NBP]);
        let (head_status, heads) = head(&firmware, &["--head", NBP]);
        assert_eq!((status, head_status), (200, 200));
        for name in ["content-length", "content-type", "etag", "last-modified", "accept-ranges"] {
            assert_eq!(got.get(name), heads.get(name), "{name}");
        }
        assert_eq!(got["content-type"], "application/efi");
        assert_eq!(got["content-length"], "400101");
        assert!(got["etag"].starts_with('"'), "a strong one: {}", got["etag"]);
        for url in [NBP, &format!("{NBP}/"), "http://10.77.0.2:8080/nbp//snponly.efi"] {
            let (status, _) = head(&firmware, &[url]);
            assert!(!(300..400).contains(&status), "{url}: {status}");
        }
    });
}

#[test]
fn a_download_is_resumed_with_a_range_and_its_etag() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let whole = firmware.fetch(NBP);
        let (_, headers) = head(&firmware, &[NBP]);
        let range = ["--header", "Range: bytes=100-199"];
        let if_match = format!("If-Match: {}", headers["etag"]);
        let part = firmware.curl(&[&range[..], &["--header", &if_match, NBP]].concat()).stdout;
        assert_eq!(part, whole[100..200]);
        let (status, headers) = head(&firmware, &[&range[..], &[NBP]].concat());
        assert_eq!((status, headers["content-range"].as_str()), (206, "bytes 100-199/400101"));
        assert!(headers.contains_key("etag"));
        let (status, _) = head(&firmware, &["--header", "If-Match: \"other\"", NBP]);
        assert_eq!(status, 412);
        appliance.wait_for("over HTTP");
        let log = appliance.log();
        assert!(!log.contains("100 bytes in"), "a part is no step of a boot: {log}");
    });
}

#[test]
fn two_requests_share_a_connection() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let output = firmware.curl(&[
            "--output",
            "/dev/null",
            "--output",
            "/dev/null",
            "--write-out",
            "%{num_connects} ",
            SCRIPT,
            KERNEL,
        ]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1 0 ");
    });
}

#[test]
fn what_is_not_served_is_refused_and_the_log_says_what_was_asked_for() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        for path in [
            "nbp/config.yaml",
            "nbp/../config.yaml",
            "nbp/%2e%2e/config.yaml",
            "images/debian/secret",
            "images/none/kernel",
            "boot/oden.ipxe",
            "boot/52-54-00-77-00-10",
            "etc/passwd",
            "",
        ] {
            let url = format!("http://10.77.0.2:8080/{path}");
            let (status, _) = head(&firmware, &["--path-as-is", &url]);
            assert_eq!(status, 404, "{path}");
        }
        appliance.wait_for("refused debian/secret: nothing is served under this name");
    });
}

#[test]
fn a_range_of_another_version_gets_the_whole_file() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let (_, headers) = head(&firmware, &[NBP]);
        let with = |validator: &str| {
            let if_range = format!("If-Range: {validator}");
            head(&firmware, &["--header", "Range: bytes=100-199", "--header", &if_range, NBP]).0
        };
        assert_eq!(with(&headers["etag"]), 206);
        assert_eq!(with(&headers["last-modified"]), 206);
        assert_eq!(with("\"other\""), 200);
    });
}

#[test]
fn who_comes_from_a_network_that_is_not_served_gets_no_script() {
    in_lab!(|lan| {
        let folder = folder();
        folder.write("config.yaml", "server: { interfaces: [eth0], nbps: [./nbps] }\n");
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        assert_eq!(head(&firmware, &[SCRIPT]).0, 200);
        lan.attach_elsewhere("elsewhere");
        let stranger = Firmware::new("elsewhere", [2; 6], Ipv4Addr::new(10, 88, 0, 50));
        for url in [SCRIPT, &SCRIPT.replace("10.77", "10.88"), KERNEL, NBP] {
            assert_eq!(head(&stranger, &[url]).0, 403, "{url}");
        }
    });
}

#[test]
fn machines_are_told_and_served_at_the_address_that_is_advertised() {
    in_lab!(|lan| {
        let folder = folder();
        folder.write("config.yaml", "server: { advertise: 10.77.0.3, nbps: [./nbps] }\n");
        run("ip", &["-n", "appliance", "addr", "add", "10.77.0.3/24", "dev", "eth0"]);
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let uefi: &[(u8, &[u8])] = &[(60, b"PXEClient"), (93, &[0, 7])];
        let offer = firmware.discover(uefi).unwrap();
        assert_eq!(offer.datagram[20..24], [10, 77, 0, 3]);
        let at = Ipv4Addr::new(10, 77, 0, 3);
        let ack = firmware.request_boot_server_at(at, uefi).unwrap();
        assert_eq!(ack.from.to_string(), "10.77.0.3:4011");
        assert!(!firmware.fetch(&format!("tftp://10.77.0.3/{}", ack.file())).is_empty());
        let ipxe: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 7])];
        let script = firmware.discover(ipxe).unwrap().file();
        assert!(script.starts_with("http://10.77.0.3:8080/boot/"), "{script}");
        assert!(firmware.fetch(&script).starts_with(b"#!ipxe"));
        run("ip", &["-n", "appliance", "addr", "del", "10.77.0.3/24", "dev", "eth0"]);
        appliance
            .wait_for("no interface of this host has 10.77.0.3, which `server.advertise` tells");
    });
}

#[test]
fn the_advertised_address_may_be_any_of_this_hosts() {
    in_lab!(|lan| {
        let folder = folder();
        folder.write(
            "config.yaml",
            "server: { interfaces: [eth0], advertise: 10.99.9.9, nbps: [./nbps] }\n",
        );
        run("ip", &["-n", "appliance", "addr", "add", "10.99.9.9/32", "dev", "lo"]);
        // Its only other address has a label, as old configs give it.
        run("ip", &["-n", "appliance", "addr", "del", "10.77.0.2/24", "dev", "eth0"]);
        let labelled = ["addr", "add", "10.77.0.2/24", "dev", "eth0", "label", "eth0:1"];
        run("ip", &[&["-n", "appliance"][..], &labelled].concat());
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        run("ip", &["-n", "machine", "route", "add", "10.99.9.9", "via", "10.77.0.2"]);
        let ipxe: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 7])];
        let script = firmware.discover(ipxe).unwrap().file();
        firmware.take_lease(ipxe);
        assert!(script.starts_with("http://10.99.9.9:8080/boot/"), "{script}");
        assert!(firmware.fetch(&script).starts_with(b"#!ipxe"));
        assert_eq!(firmware.fetch("tftp://10.99.9.9/undionly.kpxe").len(), 74_213);
    });
}

#[test]
fn a_download_that_breaks_off_is_told_as_such() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        // More than the sockets' buffers hold, so that the end is never reached.
        folder.write("linux", vec![1; 64 << 20]);
        let output = firmware.curl(&[
            "--output",
            "/dev/null",
            "--limit-rate",
            "100k",
            "--max-time",
            "1",
            KERNEL,
        ]);
        assert!(!output.status.success());
        let line = appliance.wait_for("broke off debian/kernel over HTTP");
        assert!(line.contains("oden (52:54:00:77:00:10)"), "{line}");
        let (_, after) = line.split_once(" of 67108864 bytes after ").expect(&line);
        let took = after.strip_suffix(" s: the client closed the connection").expect(&line);
        // How long it took is the client's doing, and the machine's.
        assert!(took.parse::<f64>().is_ok(), "{line}");
    });
}

#[test]
fn a_machine_that_fetches_its_nbp_again_and_again_without_its_script_is_stopped() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let pxe: &[(u8, &[u8])] = &[(60, b"PXEClient"), (93, &[0, 0])];
        firmware.take_lease(pxe);
        appliance.wait_for("takes its lease");
        let nbp = "tftp://10.77.0.2/undionly.kpxe";
        for _ in 0..3 {
            firmware.discover(pxe);
            firmware.fetch(nbp);
            appliance.wait_for("fetched undionly.kpxe");
        }
        assert!(!firmware.curl(&[nbp]).status.success());
        let why = "it fetched undionly.kpxe three times within a minute and never its script";
        appliance.wait_for(&format!("refused undionly.kpxe: {why}"));
        let url = "http://10.77.0.2:8080/nbp/undionly.kpxe";
        assert_eq!(head(&firmware, &[url]).0, 404);
        assert!(firmware.discover(pxe).is_none(), "its firmware goes on with its boot order");
        appliance.wait_for(&format!("not answered: {why}"));
        firmware.fetch(SCRIPT);
        appliance.wait_for("runs its script");
        assert_eq!(firmware.discover(pxe).unwrap().file(), "undionly.kpxe");
    });
}
