//! As much DER as keys need: nested elements, definite lengths, nothing else.

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
/// `[0]`, constructed.
pub(super) const CONTEXT_0: u8 = 0xa0;
/// `[1]`, constructed.
pub(super) const CONTEXT_1: u8 = 0xa1;

/// Takes an element with this tag off the front and returns its content.
pub(super) fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, rest) = input.split_first()?;
    if *found != tag {
        return None;
    }
    let (first, mut rest) = rest.split_first()?;
    let length = if *first < 0x80 {
        usize::from(*first)
    } else {
        // Keys need no more than four bytes of length. DER wants the shortest form.
        let count = usize::from(*first & 0x7f);
        let (bytes, after) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
        rest = after;
        let length = bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
        if bytes.first() == Some(&0) || length < 0x80 {
            return None;
        }
        length
    };
    let (content, after) = rest.split_at_checked(length)?;
    *input = after;
    Some(content)
}

/// The content of an element that has to be the whole input.
pub(super) fn only(mut input: &[u8], tag: u8) -> Option<&[u8]> {
    let content = take(&mut input, tag)?;
    input.is_empty().then_some(content)
}

/// The bytes of a bit string without unused bits.
pub(super) fn whole_bytes(bits: &[u8]) -> Option<&[u8]> {
    bits.strip_prefix(&[0])
}

/// Length of a positive integer in bits.
pub(super) fn bit_length(integer: &[u8]) -> Option<usize> {
    let magnitude = match integer {
        [0, rest @ ..] => rest,
        [first, ..] if *first < 0x80 => integer,
        _ => return None,
    };
    let first = magnitude.first().filter(|first| **first != 0)?;
    Some(magnitude.len() * 8 - usize::try_from(first.leading_zeros()).ok()?)
}
