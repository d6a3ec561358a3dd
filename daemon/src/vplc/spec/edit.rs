//! Changes in the text of a specification that leave everything else in it as it is, comments too.

use super::{Image, Spec};
use crate::core::error::{Error, Kind};
use crate::vplc::nics::CheckNic;

/// The text with another image. Where in the text the image is named is found by trying: a place is the right one if the
/// specification differs in the image then, and in nothing else.
pub(crate) fn with_image(text: &str, reference: &str, check_nic: CheckNic) -> Result<String, Error> {
    let before = Spec::parse(text, check_nic)?;
    let old = before.image.reference.as_str();
    let image = Image { reference: reference.to_owned(), ..before.image.clone() };
    let wanted = Spec { image, ..before.clone() };
    let mut refusal = None;
    for (place, _) in text.match_indices(old) {
        let changed = [&text[..place], reference, &text[place + old.len()..]].concat();
        match Spec::parse(&changed, check_nic) {
            Ok(spec) if spec == wanted => return Ok(changed),
            Ok(_) => {}
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.map_or_else(
        || {
            let message = format!(
                "The specification of the vPLC \"{}\" names its image in a way that cannot be changed here; apply one with the other image.",
                before.name
            );
            Error::new(Kind::InvalidVplc, message)
        },
        Error::from,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::document::{DocumentError, Section};

    fn check_nic(section: &mut Section<'_>) -> Result<String, DocumentError> {
        Ok(section.required("name")?.text()?.to_owned())
    }

    const HEAD: &str = "api_version: orchestrator/v1\nkind: vplc\n";

    #[test]
    fn only_the_image_changes_wherever_its_name_occurs() {
        for (text, expected) in [
            (
                "name: a # plc:1\nimage:\n  reference: plc:1   # the one of plc:1\nenvironment: {MODE: \"plc:1\"}\n",
                "name: a # plc:1\nimage:\n  reference: plc:2   # the one of plc:1\nenvironment: {MODE: \"plc:1\"}\n",
            ),
            (
                "name: a\nimage: {reference: \"plc:1\", pull: never}\n",
                "name: a\nimage: {reference: \"plc:2\", pull: never}\n",
            ),
            (
                "environment: {X: plc:1}\nname: a\nimage: {reference: 'plc:1'}\n",
                "environment: {X: plc:1}\nname: a\nimage: {reference: 'plc:2'}\n",
            ),
        ] {
            assert_eq!(with_image(&format!("{HEAD}{text}"), "plc:2", check_nic).unwrap(), format!("{HEAD}{expected}"));
        }
        let same = format!("{HEAD}name: a\nimage: {{reference: plc:1}}\n");
        assert_eq!(with_image(&same, "plc:1", check_nic).unwrap(), same);
    }

    #[test]
    fn what_cannot_be_changed_is_told() {
        let text = format!("{HEAD}name: a\nimage: {{reference: plc:1}}\n");
        let error = with_image(&text, "plc 2", check_nic).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidVplc);
        assert!(error.message.contains("\"image.reference\""), "{error}");
        // A key in disguise is no way in.
        assert!(with_image(&text, "plc:2, pull: never", check_nic).is_err());
        let text = format!("{HEAD}name: a\nimage: {{reference: \"plc\\x3a1\"}}\n");
        let error = with_image(&text, "plc:2", check_nic).unwrap_err();
        assert!(error.message.contains("apply one with the other image"), "{error}");
    }
}
