//! Which arguments stand, where several have a say.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{Argument, Layer};

/// What adds up whoever says it, since it is read as often as it stands: Talos' own
/// (`talos/website/content/reference/kernel.md`), and what dracut and systemd gather.
const ADDING_UP: [&str; 9] = [
    "talos.environment",
    "talos.network.interface.ignore",
    "talos.config.early",
    "talos.config.inline",
    "bond",
    "bridge",
    "vlan",
    "nameserver",
    "modprobe.blacklist",
];
/// And what begins so.
const ADDING_UP_BELOW: [&str; 2] = ["rd.", "systemd."];

/// The arguments that stand, in their order.
pub(super) fn settled(all: Vec<Argument<'_>>) -> Vec<Argument<'_>> {
    let mut line: Vec<Argument<'_>> = Vec::with_capacity(all.len());
    for argument in all {
        // What follows `--` is for init.
        let is_for_init = line.iter().any(|before| before.text == "--");
        if let Some(taken_away) = argument.takes_away().filter(|_| !is_for_init) {
            line.retain(|before| before.layer == Layer::Initrd || !before.is_meant_by(taken_away));
            continue;
        }
        line.retain(|before| !is_replaced(before, &argument));
        line.push(argument);
    }
    line
}

fn is_replaced(before: &Argument<'_>, later: &Argument<'_>) -> bool {
    if before.text == later.text {
        return true;
    }
    let name = name(&later.text);
    let is_ipxes = before.layer == Layer::Initrd;
    !is_ipxes
        && before.layer != later.layer
        && is_same_name(self::name(&before.text), name)
        && !adds_up(name)
}

fn adds_up(name: &str) -> bool {
    ADDING_UP.contains(&name) || ADDING_UP_BELOW.iter().any(|start| name.starts_with(start))
}

fn name(argument: &str) -> &str {
    argument.split_once('=').map_or(argument, |(name, _)| name)
}

/// The kernel takes `-` and `_` in a name for the same (`kernel/params.c`, `parameq`).
fn is_same_name(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    one.len() == other.len() && one.bytes().map(plain).eq(other.bytes().map(plain))
}

impl Argument<'_> {
    /// What it takes away of what was said before: `-name`, or `-name=value`. The `--` before what is for
    /// init is no such word.
    fn takes_away(&self) -> Option<&str> {
        let is_operators = match self.layer {
            Layer::Image | Layer::Profile | Layer::Group | Layer::Machine => true,
            Layer::Initrd | Layer::Base | Layer::Omni | Layer::Talos | Layer::Network => false,
        };
        let name = self.text.strip_prefix('-').filter(|_| is_operators)?;
        name.starts_with(|first: char| first.is_ascii_alphanumeric()).then_some(name)
    }

    fn is_meant_by(&self, taken_away: &str) -> bool {
        match taken_away.contains('=') {
            true => self.text == taken_away,
            false => is_same_name(name(&self.text), taken_away),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands of the words of some layers, those of one behind its first letter.
    fn stands(said: &str) -> String {
        let mut layer = Layer::Base;
        let mut all = Vec::new();
        for word in said.split(' ') {
            layer = match word {
                "i:" => Layer::Initrd,
                "b:" => Layer::Base,
                "o:" => Layer::Omni,
                "p:" => Layer::Profile,
                "g:" => Layer::Group,
                "m:" => Layer::Machine,
                "n:" => Layer::Network,
                word => {
                    all.push(Argument { layer, owner: "x", text: word.to_owned() });
                    continue;
                }
            };
        }
        let words: Vec<String> = settled(all).into_iter().map(|argument| argument.text).collect();
        words.join(" ")
    }

    #[test]
    fn who_comes_later_has_the_last_word_and_nothing_stands_twice() {
        for (said, expected) in [
            ("b: a b=1 p: c", "a b=1 c"),
            ("b: a quiet p: c quiet", "a c quiet"),
            ("p: quiet quiet", "quiet"),
            ("b: a=1 c p: a=2 g: a=3 m: a=4", "c a=4"),
            ("b: console=tty0 p: console=tty0 console=ttyS1", "console=tty0 console=ttyS1"),
            ("b: console=tty0 p: console=ttyS0 console=ttyS1 m: console=ttyS2", "console=ttyS2"),
            ("b: nvme_core.io_timeout=1 p: nvme-core.io-timeout=2", "nvme-core.io-timeout=2"),
            ("b: pti=on p: pti", "pti"),
            ("p: ip=dhcp m: ip=10.0.0.1::::::off n: ip=10.0.0.2::::::off", "ip=10.0.0.2::::::off"),
            ("o: siderolink.api=a p: siderolink.api=b", "siderolink.api=b"),
            (
                "p: talos.environment=http_proxy=x m: talos.environment=y=z rd.a p: rd.a=1",
                "talos.environment=http_proxy=x talos.environment=y=z rd.a rd.a=1",
            ),
        ] {
            assert_eq!(stands(said), expected, "{said}");
        }
    }

    #[test]
    fn a_name_is_taken_away_from_those_before_and_from_nobody_else() {
        for (said, expected) in [
            ("b: a=1 a=2 c p: -a d", "c d"),
            ("b: a=1 a=2 p: -a=1", "a=2"),
            ("b: init_on_alloc=1 m: -init-on-alloc", ""),
            ("p: -a g: a", "a"),
            ("p: a m: -a a=2", "a=2"),
            ("i: initrd=initrd p: -initrd", "initrd=initrd"),
            ("p: quiet -- -s", "quiet -- -s"),
            ("i: initrd=initrd p: initrd=x", "initrd=initrd initrd=x"),
            ("b: -x p: y", "-x y"),
            ("p: -none", ""),
        ] {
            assert_eq!(stands(said), expected, "{said}");
        }
    }
}
