use super::*;

fn oden() -> Entry {
    let mac = "5c:f3:fc:00:00:01".parse().unwrap();
    Entry { name: "oden".into(), mac, profile: Some("talos".into()), comment: None }
}

fn named(name: &str, profile: &str) -> Entry {
    Entry { name: name.into(), profile: Some(profile.into()), ..oden() }
}

/// Puts oden where `⟨…⟩` stands, and checks that it comes there.
#[track_caller]
fn comes_to(marked: &str) {
    let (before, rest) = marked.split_once('⟨').unwrap();
    let (inserted, after) = rest.split_once('⟩').unwrap();
    let old = format!("{before}{after}");
    let new = format!("{before}{inserted}{after}");
    assert_eq!(with_machine(&old, &oden()).as_deref(), Ok(&*new), "{old}");
}

#[track_caller]
fn becomes(old: &str, new: &str) {
    assert_eq!(with_machine(old, &oden()).as_deref(), Ok(new), "{old}");
}

#[track_caller]
fn is_refused(text: &str) -> NotAdopted {
    with_machine(text, &oden()).unwrap_err()
}

#[test]
fn an_entry_alone_stands_as_under_machines() {
    assert_eq!(entry(&oden()), "  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n");
    let comment = "IBM System x3550 M3, serial KD1234; adopted 2026-11-25";
    let told = Entry { comment: Some(comment.into()), profile: None, ..oden() };
    assert_eq!(entry(&told), format!("  oden:\n    # {comment}\n    mac: 5c:f3:fc:00:00:01\n"));
}

#[test]
fn a_comment_stays_one_line_whatever_firmware_calls_itself() {
    for (comment, line) in [
        ("x\nunknown: ignore", "    # x unknown: ignore\n"),
        ("x\r\u{85}\u{2028}\u{2029}\u{feff}\u{202e}y", "    # x      y\n"),
        (" # ☃ \t\0", "    # # ☃\n"),
        ("\n \t", ""),
    ] {
        let told = Entry { comment: Some(comment.into()), ..oden() };
        let new = with_machine("machines:\n", &told).unwrap();
        let fields = "    mac: 5c:f3:fc:00:00:01\n    profile: talos\n";
        assert_eq!(new, format!("machines:\n  oden:\n{line}{fields}"));
    }
}

#[test]
fn without_machines_the_section_comes_at_the_end_behind_a_blank_line() {
    const SECTION: &str = "machines:\n  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n";
    comes_to(&format!("unknown: menu\n⟨\n{SECTION}⟩"));
    comes_to(&format!("unknown: menu\n\n\n⟨{SECTION}⟩"));
    comes_to(&format!("unknown: menu\n# machines: none yet\n⟨\n{SECTION}⟩"));
    comes_to(&format!("⟨{SECTION}⟩"));
    comes_to(&format!("# nothing yet\n⟨\n{SECTION}⟩"));
    comes_to(&format!("# nothing yet⟨\n\n{SECTION}⟩"));
    comes_to(&format!("unknown: menu⟨\n\n{SECTION}⟩"));
    comes_to(&format!("---\n⟨\n{SECTION}⟩...\n"));
    comes_to(&format!("%YAML 1.2\n---\nunknown: menu\n⟨\n{SECTION}⟩... # over\n# so\n"));
    comes_to(&format!("\u{feff}unknown: menu\n⟨\n{SECTION}⟩"));
    comes_to(
        &format!("unknown: menu\r\n⟨\n{SECTION}⟩").replace('\n', "\r\n").replace("\r\r", "\r"),
    );
    // A text with `+` has the blank lines behind it: none is added.
    comes_to(&format!("vars:\n  a: |+\n    x\n⟨{SECTION}⟩"));
    comes_to(
        "  omni:\n     lab:\n        api: x\n⟨\n  machines:\n     oden:\n        mac: 5c:f3:fc:00:00:01\n        profile: talos\n⟩",
    );
}

#[test]
fn machines_with_nothing_under_it_gets_its_first() {
    const ENTRY: &str = "  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n";
    for (old, new) in [
        ("machines:", "machines:"),
        ("machines:  # each has a mac", "machines:  # each has a mac"),
        ("machines: ~", "machines:"),
        ("machines: null   # none", "machines:   # none"),
        ("machines: {}", "machines:"),
        ("machines: { } # {}", "machines: # {}"),
        ("machines: ~\t# a # b", "machines:\t# a # b"),
        ("\"machines\" : ~", "\"machines\" :"),
        ("'machines': {}", "'machines':"),
    ] {
        becomes(old, &format!("{new}\n{ENTRY}"));
        becomes(&format!("{old}\n"), &format!("{new}\n{ENTRY}"));
        becomes(
            &format!("a: 1\n{old}\n\n# of b\nb: 2\n"),
            &format!("a: 1\n{new}\n{ENTRY}\n# of b\nb: 2\n"),
        );
        let [windows, expected] = [format!("{old}\nb: 2\n"), format!("{new}\n{ENTRY}b: 2\n")]
            .map(|text| text.replace('\n', "\r\n"));
        becomes(&windows, &expected);
    }
}

#[test]
fn what_is_commented_out_under_machines_stays_above_the_first() {
    comes_to(
        "machines:\n  # balder:\n  #   mac: x\n⟨  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n⟩\n# who else\ngroups: []\n",
    );
    comes_to(
        "machines:\n⟨  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n⟩#  balder:\n#    mac: x\n",
    );
}

#[test]
fn the_first_machine_is_indented_as_the_rest_of_the_file() {
    becomes(
        "omni:\n    lab:\n        api: x\nmachines: {}\n",
        "omni:\n    lab:\n        api: x\nmachines:\n    oden:\n        mac: 5c:f3:fc:00:00:01\n        profile: talos\n",
    );
}

#[test]
fn the_next_machine_is_indented_as_those_before_it() {
    for (column, step) in [(1, 1), (2, 2), (4, 4), (2, 4), (8, 2), (3, 5)] {
        let [margin, deeper] = [column, column + step].map(|width| " ".repeat(width));
        comes_to(&format!(
            "machines:\n{margin}a:\n{deeper}serial: x\n{margin}b: {{ serial: y }}\n⟨{margin}oden:\n{deeper}mac: 5c:f3:fc:00:00:01\n{deeper}profile: talos\n⟩"
        ));
    }
    comes_to(
        "machines:\n   a: { serial: x }\n⟨   oden:\n      mac: 5c:f3:fc:00:00:01\n      profile: talos\n⟩unknown: menu\n",
    );
}

#[test]
fn machines_that_are_kept_apart_by_blank_lines_stay_so() {
    comes_to(
        "machines:\n  a:\n    serial: x\n\n  # the second\n  b:\n    serial: y\n⟨\n  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n⟩\nunknown: menu\n",
    );
}

#[test]
fn comments_indented_as_machines_belong_to_them_and_others_to_the_next_key() {
    const ENTRY: &str = "  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n";
    let head = "machines:\n  a:\n    serial: x   # by SMBIOS\n";
    for (of_machines, of_the_next) in [
        ("", "unknown: menu\n"),
        ("", "\n\nunknown: menu\n"),
        ("", "\n# who else\n\n# or not\nunknown: menu\n"),
        ("", "# who else\nunknown: menu\n"),
        ("  # b: later\n", "\n# who else\nunknown: menu\n"),
        ("\n  # b: later\n    #  serial: y\n", "unknown: menu\n"),
        ("                # no other tells it\n", "\nunknown: menu\n"),
        ("# b: at the margin\n  # and not\n", "\n"),
        ("", ""),
        ("", "\n\n"),
        ("", "# the end"),
        ("", "\n...\n# more\n"),
    ] {
        comes_to(&format!("{head}{of_machines}⟨{ENTRY}⟩{of_the_next}"));
    }
}

#[test]
fn the_last_machine_may_be_written_in_any_way() {
    const ENTRY: &str = "  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n";
    for last in [
        "  b: { serial: y }\n",
        "  b: {\n    serial: y,\n    cmdline: [a,\n     b]\n  }\n",
        "  b: {\n    serial: y\n}\n",
        "  b:\n    {serial: y}\n",
        "  b:\n    serial: y\n    cmdline:\n    - a\n    - b\n",
        "  b:\n    serial: y\n    vars:\n      note: |\n        c:\n          mac: z\n        # no comment\n        unknown: menu\n",
        "  b:\n    serial: y\n    vars:\n      note: >-\n        machines: {}\n\n        ...\n",
        "  b:\n    serial: y\n    vars: { note: \"a: b\n      # c\n      d: e\" }\n",
        "  b:\n    serial: y\n    vars:\n      note: a\n        b\n",
        "  b:\n    serial: y\n    vars:\n      note: |+\n        a\n\n\n",
        "  b:\n",
        "  b: ~   # not yet\n",
        "  ? b\n  : serial: y\n",
        "  \"b\":\n    serial: y\n",
        "  b: &b\n    serial: y\n",
        "  b: !!map\n    serial: y\n",
    ] {
        for next in ["", "unknown: menu\n", "# else\nunknown: menu\n"] {
            comes_to(&format!("machines:\n  a: {{ serial: x }}\n{last}⟨{ENTRY}⟩{next}"));
        }
    }
}

#[test]
fn merges_and_anchors_stay_what_they_are() {
    const ENTRY: &str = "  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n";
    for (before, after) in [
        ("machines:\n  a: &a { serial: x }\n  b:\n    <<: *a\n    serial: y\n", "unknown: menu\n"),
        ("machines:\n  a: &a\n    serial: x\n  b: *a\n", ""),
        ("machines: &all\n  a: { serial: x }\n", "unknown: menu\n"),
        ("vars: &v\n  a: { serial: x }\nmachines:\n  <<: *v\n", "unknown: menu\n"),
        ("vars: &v\n  a: { serial: x }\nmachines:\n  b: { serial: y }\n", "<<: *v\n"),
        ("machines:\n  a: { serial: x }\n  b:\n    << : { serial: y }\n", ""),
    ] {
        comes_to(&format!("{before}⟨{ENTRY}⟩{after}"));
    }
}

#[test]
fn line_endings_stay_and_the_entry_has_them() {
    let text = "# so\nmachines:\n  a:\n    serial: x\n⟨  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n⟩\n# else\nunknown: menu";
    comes_to(&text.replace('\n', "\r\n"));
    comes_to(
        &"machines:\n  a:\n    serial: x⟨\n  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n⟩"
            .replace('\n', "\r\n"),
    );
    comes_to(
        "machines:\n  a:\n    serial: >\n      x⟨\n  oden:\n    mac: 5c:f3:fc:00:00:01\n    profile: talos\n⟩",
    );
}

#[test]
fn names_and_profiles_are_written_so_that_every_reader_of_yaml_takes_them_for_text() {
    for (text, written) in [
        ("oden", "oden"),
        ("k3s-1.lan_a", "k3s-1.lan_a"),
        ("a:b", "a:b"),
        ("4c4c4544-b04f", "4c4c4544-b04f"),
        ("no", "\"no\""),
        ("Y", "\"Y\""),
        ("NULL", "\"NULL\""),
        ("~", "\"~\""),
        ("1.10", "\"1.10\""),
        ("007", "\"007\""),
        ("1e3", "\"1e3\""),
        ("0x1f", "\"0x1f\""),
        ("2026-11-25", "\"2026-11-25\""),
        ("10:20:30", "\"10:20:30\""),
        (".inf", "\".inf\""),
        ("-", "\"-\""),
        ("---", "\"---\""),
        ("<<", "\"<<\""),
        ("", "\"\""),
        ("a: b", "\"a: b\""),
        ("a:", "\"a:\""),
        ("#x", "\"#x\""),
        ("  x ", "\"  x \""),
        ("hörbert", "\"hörbert\""),
        ("*a", "\"*a\""),
        ("{a}", "\"{a}\""),
        ("it's \"so\\\"", "\"it's \\\"so\\\\\\\"\""),
        ("a\nb\t\u{85}", "\"a\\U0000000ab\\U00000009\\U00000085\""),
        ("\u{2028}\u{feff}😀", "\"\\U00002028\\U0000feff😀\""),
    ] {
        let odd = named(text, text);
        let fields = format!("    mac: 5c:f3:fc:00:00:01\n    profile: {written}\n");
        assert_eq!(entry(&odd), format!("  {written}:\n{fields}"));
        for old in ["", "machines:\n", "machines:\n  a: { serial: x }\nunknown: menu\n"] {
            with_machine(old, &odd).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        }
    }
    let digits = Entry { mac: Mac::new([0x10, 0x20, 0x30, 0x40, 0x50, 0x50]), ..oden() };
    assert!(entry(&digits).contains("mac: \"10:20:30:40:50:50\"\n"));
    let plain = with_machine("machines:\n  a:\n    mac: 10:20:30:40:50:50\n", &digits);
    assert!(matches!(plain, Err(NotAdopted::MacTaken { line: 3, .. })), "{plain:?}");
}

#[test]
fn a_machine_that_is_there_is_not_entered_again() {
    let told = |text: &str| is_refused(text).to_string();
    assert_eq!(
        told("machines:\n  a: {}\n  oden:\n    serial: x\n"),
        "there is a machine oden already, on line 3; give this one another name"
    );
    let line = "machine a has the MAC address 5c:f3:fc:00:00:01 already, on line";
    for spelling in [
        "5c:f3:fc:00:00:01",
        "5C-F3-FC-00-00-01",
        "5cf3.fc00.0001",
        "5cf3fc000001",
        "\"5C:F3:FC:00:00:01\"",
        "[9c8e.9900.0001, 5cf3.fc00.0001]",
    ] {
        let text = format!("machines:\n  oden:\n  a:\n    mac: {spelling}\n");
        assert_eq!(told(&text), format!("{line} 4"), "the address comes first");
    }
    let text = "machines:\n  a:\n    mac:\n    - 9c8e.9900.0001\n    - 5cf3.fc00.0001\n";
    assert_eq!(told(text), format!("{line} 5"));
    let text = "base: &b { mac: 5cf3.fc00.0001 }\nmachines:\n  a: { <<: *b }\n";
    assert_eq!(told(text), format!("{line} 3"));
    let text = "machines: { a: { mac: 5cf3.fc00.0001 } }\n";
    assert_eq!(told(text), format!("{line} 1"), "also where it could not be entered");
    // Elsewhere it may be.
    assert!(with_machine("oden: { mac: 5cf3.fc00.0001 }\n", &oden()).is_ok());
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    let told = |text: &str| is_refused(text).to_string();
    assert_eq!(
        told("machines:\n\ta: {}\n"),
        "the config is no YAML: line 2, column 1: a tab stands here; YAML is indented with blanks"
    );
    for (text, line) in [
        ("machines:\n  a: \"x\n", 2),
        ("machines:\n  a: [1\nb: 2\n", 2),
        ("machines:\n  a: {}\n---\nmachines:\n", 3),
        ("machines:\n  a: {}\n b: {}\n", 3),
    ] {
        let error = is_refused(text);
        assert!(
            matches!(&error, NotAdopted::NoYaml { place, .. } if place.line == line),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_mapping_is_told() {
    let told = |text: &str| is_refused(text).to_string();
    assert_eq!(told("- a\n"), "the config is a list, on line 1; a mapping belongs there");
    assert_eq!(
        told("a: 1\nmachines: [b]\n"),
        "`machines` is a list, on line 2; a mapping belongs there"
    );
    assert_eq!(
        told("machines: oden\n"),
        "`machines` is a single value, on line 1; a mapping belongs there"
    );
}

#[test]
fn what_cannot_be_extended_line_by_line_is_left_to_who_wrote_it() {
    for (text, obstacle) in [
        ("a: 1\nmachines: { a: { serial: x } }\n", Obstacle::Braces(2)),
        ("machines: {\n  a: { serial: x }\n}\n", Obstacle::Braces(1)),
        ("machines:\n  {\n  a: { serial: x }\n  }\n", Obstacle::Braces(1)),
        ("machines: {\n}\n", Obstacle::Braces(1)),
        ("x: &x { a: { serial: x } }\nmachines: *x\n", Obstacle::Alias(2)),
        ("x: &x\n  a: { serial: x }\nmachines:\n  *x\n", Obstacle::Alias(3)),
        ("x: &x {}\nmachines: *x # none\n", Obstacle::Alias(2)),
        ("machines:\nunknown: menu\nmachines:\n", Obstacle::Twice(3)),
        ("{ machines: { a: { serial: x } } }\n", Obstacle::Unclear),
        ("{ unknown: menu }\n", Obstacle::Unclear),
        ("{}\n", Obstacle::Unclear),
        ("~\n", Obstacle::Unclear),
        ("? machines\n: a: { serial: x }\n", Obstacle::Unclear),
        ("machines:\n  ~\n", Obstacle::Unclear),
        ("machines: &none {}\nx: *none\n", Obstacle::Unclear),
        ("machines: &all\n  a: { serial: x }\nx: *all\n", Obstacle::Unclear),
        ("\"\\x6dachines\":\n  a: { serial: x }\n", Obstacle::Unclear),
        ("a: 1\rmachines:\r  a: { serial: x }\r", Obstacle::Unclear),
        ("--- { a: 1 }\n", Obstacle::Unclear),
    ] {
        assert_eq!(is_refused(text), NotAdopted::ByHand(obstacle), "{text:?}");
    }
    assert_eq!(
        NotAdopted::ByHand(Obstacle::Braces(7)).to_string(),
        "`machines` is written in braces, on line 7; put the entry in by hand"
    );
}

#[test]
fn the_example_takes_one_more() {
    let text = include_str!("../../../../config.example.yaml");
    assert!(matches!(is_refused(text), NotAdopted::MacTaken { name, .. } if name == "oden"));
    let new = Entry {
        name: "loke".into(),
        mac: "5c:f3:fc:00:00:09".parse().unwrap(),
        profile: Some("rescue".into()),
        comment: Some("IBM System x3550 M3".into()),
    };
    let at = text.find("\ngroups:").unwrap();
    let expected = format!("{}{}{}", &text[..at], entry(&new), &text[at..]);
    assert_eq!(with_machine(text, &new), Ok(expected));
    // One after the other.
    let mut grown = text.to_owned();
    for n in 10..30 {
        let name = format!("loke-{n}");
        let mac = Mac::new([0x5c, 0xf3, 0xfc, 0, 0, n]);
        grown = with_machine(&grown, &Entry { name, mac, ..new.clone() }).unwrap();
    }
    assert_eq!(grown.lines().count(), text.lines().count() + 20 * 4);
}

#[test]
fn a_file_that_is_cut_or_garbled_is_refused_or_keeps_its_lines() {
    let text = "# ä\nserver: { a: [b] }\nmachines: # ö\n  a: &a\n    n: |\n      x: y\n  # z\n  b: { <<: *a }\n\n# c\nunknown: menu\n...\n";
    let mut entered = 0;
    for (at, was) in text.char_indices() {
        let (before, behind) = (&text[..at], &text[at + was.len_utf8()..]);
        let mut garbled = vec![before.to_owned(), format!("{before}{behind}")];
        let odd = ["\r", "\n", "\t", "{", "}", "*", "#", ":", " ", "\u{feff}", "ä"];
        garbled.extend(odd.map(|odd| format!("{before}{odd}{behind}")));
        for old in garbled {
            if let Ok(new) = with_machine(&old, &oden()) {
                entered += 1;
                assert!(keeps_every_line(&old, &new), "{old:?}\n{new:?}");
            }
        }
    }
    assert!(entered > 500, "{entered}");
}

/// Whether the old text's lines are all in the new one, in their order, with one block between them.
fn keeps_every_line(old: &str, new: &str) -> bool {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let same = |(one, other): &(&&str, &&str)| one == other;
    let head = old.iter().zip(&new).take_while(same).count();
    old[head..].iter().rev().zip(new.iter().rev()).take_while(same).count() == old.len() - head
}

#[test]
fn however_a_file_is_put_together_it_keeps_its_lines_and_its_meaning() {
    let begins: &[&str] = &["", "# a comment\n", "---\n", "%YAML 1.2\n---\n# so\n\n", "\u{feff}"];
    let befores: &[&str] = &[
        "",
        "server:\n    state: ./x\n\n",
        "vars: &v { serial: x }\n",
        "note: |\n  machines:\n    z: {}\n\n",
    ];
    let heads: &[&str] = &["machines:\n", "machines:   # all\n", "\n# them\nmachines:\n  # one:\n"];
    let firsts: &[&str] = &[
        "",
        "  a: { serial: x }\n",
        "  a:\n      serial: x\n",
        "  a:\n    serial: x\n\n  b:\n    serial: y\n",
    ];
    let lasts: &[&str] = &[
        "",
        "  z: {\n   serial: z\n  }\n",
        "  z:\n    vars:\n      n: |+\n        a:\n         # b\n\n",
        "  z:\n  # y:\n",
        "  z: [a,\n b]\n",
        "  z:\n    vars:\n    - k: \"x\n\n      y: z\"\n",
    ];
    let gaps: &[&str] =
        &["", "\n\n", "\n# of the next\n", "  # of machines\n", "# at the margin\n  # not\n"];
    let afters: &[&str] = &["", "unknown: menu\n", "groups:\n- name: x\n", "...\n", "# over"];
    let parts = [begins, befores, heads, firsts, lasts, gaps, afters];
    let all: usize = parts.iter().map(|part| part.len()).product();
    // Every one of each part meets every one of each other: 17 shares no factor with how many there are.
    for number in (0..all).step_by(17) {
        let mut rest = number;
        let chosen = parts.map(|part| {
            let at = rest % part.len();
            rest /= part.len();
            part[at]
        });
        check_with_every_ending(&chosen.concat());
    }
}

fn check_with_every_ending(text: &str) {
    let told = Entry { comment: Some("what it is".into()), ..oden() };
    for old in [text.to_owned(), text.trim_end_matches('\n').to_owned(), text.replace('\n', "\r\n")]
    {
        let new = with_machine(&old, &told).unwrap_or_else(|error| panic!("{old:?}: {error}"));
        assert!(keeps_every_line(&old, &new), "{old:?}\n{new:?}");
        let is_windows = old.contains('\r');
        let ends = |text: &str| text.matches('\n').count() - text.matches("\r\n").count();
        assert!(!is_windows || ends(&new) == 0, "{new:?}");
        assert_eq!(new.contains('\r'), is_windows);
        let again = with_machine(&new, &told);
        assert!(matches!(again, Err(NotAdopted::MacTaken { .. })), "{new:?}");
    }
}
