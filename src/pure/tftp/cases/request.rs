//! What a datagram to port 69 may look like.

use super::{ack, error, read, rrq};
use crate::pure::tftp::packet::{self, ErrorCode, Malformed, Packet};

/// edk2 Mtftp4Support.c, Mtftp4SendRequest: as OVMF sent it.
#[test]
fn the_request_of_edk2_is_read_whole() {
    let rrq = read(&rrq(&[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")]));
    assert_eq!((rrq.file.as_slice(), rrq.mode.as_str()), (&b"snponly.efi"[..], "octet"));
    assert_eq!(rrq.option("tsize"), Some("0"));
    assert_eq!(rrq.option("blksize"), Some("1468"));
    assert_eq!(rrq.option("windowsize"), Some("4"));
    assert_eq!(rrq.option("timeout"), None);
}

/// RFC 1350 section 5 (modes) and RFC 2347 (options): "in any combination of upper and lower case".
#[test]
fn a_mode_and_an_options_name_are_read_in_any_case() {
    let rrq = read(b"\0\x01x\0OcTeT\0BLKSIZE\x001024\0");
    assert_eq!((rrq.mode.as_str(), rrq.option("blksize")), ("octet", Some("1024")));
}

/// RFC 1350 section 5: netascii and mail are modes too; the server refuses them by name.
#[test]
fn another_mode_is_read_as_it_is() {
    assert_eq!(read(b"\0\x01x\0netascii\0").mode, "netascii");
    assert_eq!(read(b"\0\x01x\0mail\0").mode, "mail");
}

/// RFC 2347: "An option may only be specified once"; the first is the one that was meant.
#[test]
fn of_two_options_with_one_name_the_first_counts() {
    assert_eq!(read(&rrq(&[("blksize", "512"), ("BlkSize", "1024")])).options.len(), 1);
    assert_eq!(
        read(&rrq(&[("blksize", "512"), ("BlkSize", "1024")])).option("blksize"),
        Some("512")
    );
}

/// syslinux mailing list 2008-02 (9778): ROMs that read past the end of option 67 send what stood there.
#[test]
fn a_file_name_comes_as_it_was_sent() {
    assert_eq!(read(b"\0\x01undionly.kpxe\xff\0octet\0").file, b"undionly.kpxe\xff");
    assert_eq!(read(b"\0\x01caf\xe9.efi\0octet\0").file, b"caf\xe9.efi");
}

/// syslinux mailing list 2014-03 (21918): what stands behind the name in memory may have a NUL in it.
#[test]
fn the_mode_is_found_behind_garbage_with_a_nul_in_it() {
    let rrq = read(b"\0\x01undionly.kpxe\xff\0\x12junk\0OCTET\0blksize\x001024\0");
    assert_eq!((rrq.file.as_slice(), rrq.mode.as_str()), (&b"undionly.kpxe\xff"[..], "octet"));
    assert_eq!(rrq.option("blksize"), Some("1024"));
}

/// No standard: some ROMs leave out the last NUL, others send one too many.
#[test]
fn a_forgotten_last_nul_and_stray_bytes_are_forgiven() {
    for bytes in [&b"\0\x01x\0octet\0tsize\x000"[..], b"\0\x01x\0octet\0tsize\x000\0\0"] {
        assert_eq!(read(bytes).option("tsize"), Some("0"), "{bytes:?}");
    }
    assert_eq!(read(b"\0\x01x\0octet").mode, "octet");
    assert_eq!(read(b"\0\x01x\0octet\0tsize").options, []);
}

/// RFC 1350 section 5: what is cut short, or of a kind that only servers send, gets no answer.
#[test]
fn what_is_no_packet_of_a_client_is_malformed() {
    for bytes in [
        &b""[..],
        b"\0",
        b"\0\x01",
        b"\0\x01x",
        b"\0\x01x\0",
        b"\0\x04\0",
        b"\0\x05\0",
        b"\0\x03\0\x01data",
        b"\0\x06tsize\x000\0",
        b"\0\x09\0\0",
        b"\x01\0x\0octet\0",
    ] {
        assert_eq!(Packet::decode(bytes), Err(Malformed), "{bytes:?}");
    }
}

/// RFC 768: the longest that UDP carries; and whatever else a client may send.
#[test]
fn no_datagram_is_too_long_or_too_strange_to_be_read() {
    for fill in [0, b'a', 0xff] {
        for opcode in 0..=7 {
            let mut datagram = vec![fill; 65_507];
            datagram[..2].copy_from_slice(&[0, opcode]);
            Packet::decode(&datagram).ok();
        }
    }
    let whole = rrq(&[("tsize", "0"), ("blksize", "1468")]);
    for len in 0..whole.len() {
        Packet::decode(&whole[..len]).ok();
    }
    let many: Vec<(&str, &str)> = vec![("tsize", "0"); 5000];
    assert_eq!(read(&rrq(&many)).options.len(), 1);
}

/// RFC 1350 section 4: a write request is one, with whatever it asks for.
#[test]
fn a_write_request_is_known_for_one() {
    assert_eq!(Packet::decode(b"\0\x02x\0octet\0"), Ok(Packet::Wrq));
    assert_eq!(Packet::decode(b"\0\x02"), Ok(Packet::Wrq));
}

/// RFC 1350 section 5, and what is sent beyond it: edk2 ends with 8, BIOS ROMs with 0, some with 99.
#[test]
fn any_error_code_is_an_error() {
    for code in [0, 8, 99] {
        let gone = Packet::Error(code.into(), "gone".into());
        assert_eq!(Packet::decode(&error(code, "gone")), Ok(gone));
    }
    assert_eq!(Packet::decode(b"\0\x05\0\x08"), Ok(Packet::Error(8, String::new())));
    assert_eq!(Packet::decode(&ack(65_535)), Ok(Packet::Ack(65_535)));
}

/// RFC 1350 section 5, figure 5-4, and the codes in its appendix.
#[test]
fn an_error_has_its_code_its_text_and_a_nul() {
    assert_eq!(packet::error(ErrorCode::NotFound, "no"), error(1, "no"));
    assert_eq!(packet::error(ErrorCode::AccessViolation, ""), error(2, ""));
    assert_eq!(packet::error(ErrorCode::IllegalOperation, "no"), error(4, "no"));
    assert_eq!(packet::error(ErrorCode::UnknownTransferId, "no"), error(5, "no"));
}
