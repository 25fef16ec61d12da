//! What `robots.txt` allows (RFC 9309): the group of our name, else that of everybody; the longest pattern that fits decides,
//! and where an `Allow` and a `Disallow` are as long, `Allow`.

/// Our name there, in lower case.
pub(crate) const NAME: &str = "pixfleet";

/// Patterns and whether they allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Robots(Vec<(String, bool)>);

impl Robots {
    /// The rules for us in a file.
    pub(crate) fn parse(text: &str) -> Self {
        let (mut ours, mut everybody, mut has_ours) = (Vec::new(), Vec::new(), false);
        let (mut names, mut was_name) = (Vec::new(), false);
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some((key, value)) = line.split_once(':') else { continue };
            let (key, value) = (key.trim().to_lowercase(), value.trim());
            match key.as_str() {
                "user-agent" => {
                    if !was_name {
                        names.clear();
                    }
                    was_name = true;
                    names.push(value.to_lowercase());
                    has_ours |= value.eq_ignore_ascii_case(NAME);
                }
                "allow" | "disallow" => {
                    was_name = false;
                    // An empty pattern fits nothing.
                    if !value.is_empty() {
                        let rule = (value.to_owned(), key == "allow");
                        if names.iter().any(|name| name == NAME) {
                            ours.push(rule.clone());
                        }
                        if names.iter().any(|name| name == "*") {
                            everybody.push(rule);
                        }
                    }
                }
                _ => {}
            }
        }
        Self(if has_ours { ours } else { everybody })
    }

    /// Whether a path, with its query, may be asked for.
    pub(crate) fn allows(&self, path: &str) -> bool {
        let fitting = self.0.iter().filter(|(pattern, _)| fits(pattern, path));
        fitting.max_by_key(|(pattern, allows)| (pattern.len(), *allows)).is_none_or(|(_, allows)| *allows)
    }
}

/// `*` is any text, `$` at the end is the end of the path.
fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, to_the_end) = pattern.strip_suffix('$').map_or((pattern, false), |p| (p, true));
    let mut parts = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return !to_the_end || rest.is_empty() };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    if to_the_end { rest.ends_with(last) } else { rest.contains(last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_group_comes_before_everybody_s_and_the_longest_pattern_decides() {
        let text = "User-agent: *\nDisallow: /\n\nUser-Agent: other\nuser-agent: PixFleet # us\nDisallow: /private\n\
                    Allow: /private/open\nDisallow: /*.gif$\nDisallow:\n";
        let robots = Robots::parse(text);
        assert!(robots.allows("/a.jpg") && robots.allows("/private/open/a.jpg") && robots.allows("/a.gif?x"));
        assert!(!robots.allows("/private/a.jpg") && !robots.allows("/b/a.gif"));
        let everybody = Robots::parse("User-agent: *\nDisallow: /x\nAllow: /x\nDisallow: /y*z\n");
        assert!(everybody.allows("/x") && everybody.allows("/y") && !everybody.allows("/y1z2"));
        assert!(Robots::parse("<html>no such file</html>").allows("/a"));
        assert!(Robots::parse("User-agent: pixfleet\nUser-agent: *\n").allows("/a"));
    }
}
