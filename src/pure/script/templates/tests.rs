use minijinja::context;

use super::*;
use crate::pure::catalog::Profile;
use crate::pure::catalog::select::Who;
use crate::pure::catalog::settings::Settings;
use crate::pure::catalog::wipes::wipes;

fn templates(own: &[(&str, &str)], answers: &[(&str, &str)]) -> Templates {
    let own = own.iter().map(|(name, text)| ((*name).to_owned(), Ok((*text).to_owned())));
    let answers = answers.iter().map(|(path, text)| (path.into(), Ok((*text).to_owned())));
    Templates::new(own.collect(), answers.collect())
}

fn script(source: &str, values: &Value) -> Result<String, String> {
    templates(&[("own", source)], &[]).script("own", values).map_err(|why| why.to_string())
}

fn answer(source: &str, values: &Value) -> Result<String, String> {
    let filled =
        templates(&[], &[("/srv/answer", source)]).answer(Path::new("/srv/answer"), values);
    filled.map_err(|why| why.to_string())
}

#[test]
fn a_word_of_a_script_is_what_ipxe_takes_for_one() {
    let print = |value: &str| script("echo {{ x }}", &context! { x => value });
    for value in ["oden", "a;b", "a||b", "x#", "100%", "Öden", "\"x\"", "a\\b", "$x", "{x}"] {
        assert_eq!(print(value).as_deref(), Ok(&*format!("echo {value}")));
    }
    let refused = "template own.ipxe:1: a value that is printed here ";
    for (value, why) in [
        ("", "is empty"),
        ("a b", "has a blank in it, where iPXE would split it; make it two arguments"),
        ("a\nb", "has a control character in it"),
        ("||", "is an operator to iPXE, which would end the command there"),
        ("#x", "starts with `#`, where iPXE would end the command"),
        ("${x}", "has `${` in it, which iPXE would expand"),
        ("x\\", "ends with `\\`, with which iPXE would join the next line"),
    ] {
        assert_eq!(print(value), Err(format!("{refused}{why}")));
    }
}

#[test]
fn words_of_a_text_are_checked_each_and_those_of_a_list_are_one_an_item() {
    let values = context! {
        text => "a b=c", list => vec!["a", "b=c"], operator => "a || b", blank => vec!["a", "b c"],
        expansion => vec!["${x}"],
    };
    assert_eq!(script("{{ text | words }}", &values).as_deref(), Ok("a b=c"));
    assert_eq!(script("{{ list | words }}", &values).as_deref(), Ok("a b=c"));
    assert_eq!(script("{{ (list + [\"d=\" ~ 1]) | words }}", &values).as_deref(), Ok("a b=c d=1"));
    assert_eq!(script("{{ [] | words }}", &values).as_deref(), Ok(""));
    for (source, why) in [
        ("{{ operator | words }}", "is an operator to iPXE, which would end the command there"),
        (
            "{{ blank | words }}",
            "has a blank in it, where iPXE would split it; make it two arguments",
        ),
        ("{{ expansion | words }}", "has `${` in it, which iPXE would expand"),
        (
            "{{ [\"x=\" ~ text] | words }}",
            "has a blank in it, where iPXE would split it; make it two arguments",
        ),
    ] {
        let refused = script(source, &values).unwrap_err();
        assert_eq!(refused, format!("template own.ipxe:1: a word that is printed here {why}"));
    }
}

#[test]
fn what_is_only_shown_leaves_out_what_cannot_be_printed() {
    let shown = |value: Value| script("{{ x | harmless }}", &context! { x => value });
    for (value, expected) in [
        (Value::from("HP || shell"), "HP shell"),
        (Value::from("a\n${x}  b"), "a b"),
        (Value::from(()), ""),
        (Value::from(7), "7"),
        (Value::from("HP \u{202e}evil\u{202c} \u{feff}x Z440"), "HP Z440"),
    ] {
        assert_eq!(shown(value).as_deref(), Ok(expected));
    }
    assert_eq!(script("{{ nothing | harmless }}", &context! {}).as_deref(), Ok(""));
}

#[test]
fn a_word_of_an_answer_file_cannot_leave_a_shell_word_a_quoted_text_or_a_yaml_value() {
    let print = |value: &str| answer("x: {{ x }}", &context! { x => value });
    for value in ["oden", "10.0.0.1/24", "http://x/a=b,c", "100%", "Öden", "a:b", "-x"] {
        assert_eq!(print(value).as_deref(), Ok(&*format!("x: {value}")), "{value}");
    }
    let odd = [
        "a b", "a\nb", "a\tb", "\"", "'", "`id`", "$(id)", "a;b", "a|b", "a&b", "a>b", "#x", "{x}",
        "[x]", "*x", "!x", "a\\b", "x:", "", "\u{0}", "?", "^",
    ];
    for value in odd {
        let refused = print(&format!("hush{value}")).err().or(print(value).err()).unwrap();
        let start = "template /srv/answer:1: a value that is printed here ";
        assert!(refused.starts_with(start), "{value:?}: {refused}");
        assert!(!refused.contains("hush"), "it is not repeated: {refused}");
    }
}

#[test]
fn no_block_and_no_filter_turns_the_check_off_by_accident() {
    let values = context! { x => "a || shell" };
    for source in [
        "{% autoescape false %}{{ x }}{% endautoescape %}",
        "{% set y %}{{ x }}{% endset %}{{ y }}",
        "{% set y = \"z \" ~ x %}{{ y }}",
        "{% macro m() %}{{ x }}{% endmacro %}{{ m() }}",
        "{{ [x, x] | join(' ') }}",
        "{{ x | replace('a', 'b') }}",
        "{{ x | upper }}",
        "{{ x | escape }}",
        "{{ \"%s\" | format(x) }}",
    ] {
        assert!(script(source, &values).is_err(), "{source}: {:?}", script(source, &values));
        assert!(answer(source, &values).is_err(), "{source}");
    }
    assert_eq!(script("{{ x | safe }}", &values).as_deref(), Ok("a || shell"), "who says so");
}

#[test]
fn json_in_an_answer_file_holds_any_value() {
    for value in ["a \"b\" \\ \n ${x} || # ' </script> Öden", "", "x:"] {
        let text = answer("{\"x\": {{ x | tojson }}}", &context! { x => value }).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["x"], value);
    }
    let none = context! { x => (), list => Vec::<u8>::new() };
    assert_eq!(answer("{{ x | tojson }} {{ list | tojson }}", &none).as_deref(), Ok("null []"));
    let refused = answer("{{ y | tojson }}", &none).unwrap_err();
    assert!(refused.ends_with(": a value that is printed here is not known"), "{refused}");
    let in_a_script = script("echo {{ x | tojson }}", &context! { x => "a || shell" }).unwrap_err();
    assert!(in_a_script.contains("has a blank in it"), "iPXE has no quoting: {in_a_script}");
}

#[test]
fn what_is_not_known_is_told_with_what_is_near_and_what_has_no_value_is_not_printed() {
    let values = context! {
        machine => context! { name => "oden", gateway => (), vars => context! { bay => 3 } },
        list => vec![1],
    };
    for (source, expected) in [
        ("{{ machin.name }}", "`machin.name` is not known; did you mean `machine.name`?"),
        ("{{ machine.nam }}", "`machine.nam` is not known; did you mean `machine.name`?"),
        (
            "{{ machine.vars.bax }}",
            "`machine.vars.bax` is not known; did you mean `machine.vars.bay`?",
        ),
        ("{{ machine.vars.cage }}", "`machine.vars.cage` is not known"),
        ("{{ machine.gateway }}", "a value that is printed here is not known"),
        ("{{ list }}", "a sequence cannot be printed; print what is in it"),
        ("{{ machine.name | word }}", "unknown filter: filter word is unknown"),
    ] {
        let told = script(source, &values).unwrap_err();
        assert_eq!(told, format!("template own.ipxe:1: {expected}"));
    }
    assert_eq!(script("{% if machine.vars.cage %}x{% endif %}", &values).as_deref(), Ok(""));
}

#[test]
fn a_mistake_in_what_is_included_stands_there_and_each_has_its_line() {
    let own =
        [("own", "#!ipxe\n{% include \"part.ipxe\" %}\n"), ("part", "echo\n\necho {{ x }}\n")];
    let told = templates(&own, &[]).script("own", &context! { x => "a b" }).unwrap_err();
    assert_eq!((told.file.as_deref(), told.line), (Some("part.ipxe"), Some(3)));
    let missing = templates(&[("own", "\n{% include \"gone.ipxe\" %}")], &[]);
    let told = missing.script("own", &context! {}).unwrap_err();
    assert_eq!((told.file.as_deref(), told.line), (Some("own.ipxe"), Some(2)));
    assert!(told.message.contains("gone.ipxe"), "{told}");
    // A name that is made of a value may be a secret.
    let made = templates(&[("own", "{% include omni.api_url %}")], &[]);
    let values = context! { omni => context! { api_url => "https://x?jointoken%3Dhush" } };
    let told = made.script("own", &values).unwrap_err().to_string();
    assert_eq!(told, "template own.ipxe:1: there is no template of the name that is made here");
}

#[test]
fn who_prints_facts_is_known_also_through_what_it_includes() {
    let own = [
        ("a", "{% include \"b.ipxe\" %}"),
        ("b", "{{ client.serial }}"),
        ("c", "{{ machine.name }}"),
        ("d", "{% include \"a.ipxe\" %}"),
        ("e", "{{ machine.serial }}"),
        ("f", "{{ client[\"serial\"] }}"),
        ("g", "{% set told = client %}{{ told.serial }}"),
        ("h", "{%- include 'b.ipxe' %}"),
        ("i", "{% include machine.vars.part %}"),
        ("j", "{# client.serial #}{% include 'c.ipxe' %}"),
    ];
    let templates =
        templates(&own, &[("/x", "{{ client.product }}"), ("/y", "{{ machine.name }}")]);
    let using = |name| templates.needs_facts().script(name);
    assert_eq!(["a", "b", "c", "d", "e"].map(using), [true, true, false, true, true]);
    assert_eq!(["f", "g", "h", "i", "j"].map(using), [true, true, true, true, false]);
    assert_eq!(["inspect", "linux", "talos", "menu"].map(using), [true, false, false, false]);
    let using = |path| templates.needs_facts().answer(Path::new(path));
    assert_eq!(["/x", "/y", "/z"].map(using), [true, false, false]);
}

#[test]
fn a_loop_without_an_end_and_a_text_without_one_are_refused() {
    let endless = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}";
    let told = script(endless, &context! {}).unwrap_err();
    assert_eq!(
        told,
        "template own.ipxe:1: it takes more steps than any script needs; does this loop end?"
    );
    let wide = "x".repeat(1 << 18);
    let told = script("{{ x }}{{ x }}{{ x }}{{ x }}y", &context! { x => wide }).unwrap_err();
    assert_eq!(told, "template own.ipxe: it is longer than 1048576 bytes once it is filled in");
}

#[test]
fn a_broken_template_is_kept_as_such_and_another_of_its_name_replaces_a_built_in_one() {
    let broken = templates(&[("talos", "{% if %}"), ("mine", "echo")], &[("/x", "{{")]);
    assert!(broken.knows("talos") && broken.knows("mine") && !broken.knows("yours"));
    let told = broken.script("talos", &context! {}).unwrap_err();
    assert_eq!((told.file.as_deref(), told.line), (Some("talos.ipxe"), Some(1)));
    assert!(broken.answers()[Path::new("/x")].is_err());
    assert!(broken.answer(Path::new("/x"), &context! {}).is_err());
    assert!(broken.names().contains(&"mine".to_owned()));
}

#[test]
fn two_values_side_by_side_make_nothing_that_neither_is() {
    for (a, b) in [("x$", "{net0/mac}"), ("$", "{uuid}"), ("|", "|"), ("&", "&")] {
        let values = context! { a => a, b => b };
        for source in
            ["echo {{ a }}{{ b }}", "echo {{ a | words }}{{ b | words }}", "echo ${{ b }}"]
        {
            assert!(script(source, &values).is_err(), "{source} {a} {b}");
        }
    }
    let values = context! { a => "x$y", b => "a|b{c}" };
    assert_eq!(script("echo {{ a }}{{ b }}", &values).as_deref(), Ok("echo x$ya|b{c}"));
    let told = script("echo ${{ b }}", &values).unwrap_err();
    assert!(told.starts_with("template own.ipxe:1: a `$` stands right before"), "{told}");
}

#[test]
fn every_script_wipes_unless_it_is_known_not_to() {
    let harmless = ["memtest", "inspect", "menu", "local-disk", "talos", "linux"];
    let own = ["my-installer", "Talos", "linux2", ""];
    for script in BUILT_IN.iter().map(|(name, _)| *name).chain(own) {
        let profile = Profile {
            name: "p".into(),
            script: script.into(),
            has_own_script: false,
            image: None,
            omni: None,
            settings: Settings::default(),
        };
        let expected = !harmless.contains(&script);
        assert_eq!(wipes(&profile, &Who::default()), expected, "{script}");
    }
}
