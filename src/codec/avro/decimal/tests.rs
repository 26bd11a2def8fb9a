use proptest::prelude::*;

use super::*;

/// By long addition, digit by digit: nothing of what is tested takes part.
fn slow_text(bytes: &[u8], scale: usize) -> String {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut bits: Vec<bool> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
        .collect();
    if negative {
        bits.iter_mut().for_each(|bit| *bit = !*bit);
    }
    let mut digits = vec![0u8];
    let mut double_and_add = |one: bool| {
        let mut carry = u8::from(one);
        for digit in &mut digits {
            let value = *digit * 2 + carry;
            (*digit, carry) = (value % 10, value / 10);
        }
        if carry > 0 {
            digits.push(carry);
        }
    };
    bits.into_iter().for_each(&mut double_and_add);
    if negative {
        let mut at = 0;
        while digits.get(at) == Some(&9) {
            digits[at] = 0;
            at += 1;
        }
        match digits.get_mut(at) {
            Some(digit) => *digit += 1,
            None => digits.push(1),
        }
    }
    while digits.len() <= scale {
        digits.push(0);
    }
    let mut text: String = digits
        .iter()
        .rev()
        .map(|digit| char::from(b'0' + digit))
        .collect();
    if scale > 0 {
        text.insert(text.len() - scale, '.');
    }
    if negative { format!("-{text}") } else { text }
}

fn without_zeros(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |text| ("-", text));
    let text = text.trim_start_matches('0');
    let zero = if text.is_empty() || text.starts_with('.') {
        "0"
    } else {
        ""
    };
    format!("{sign}{zero}{text}")
}

proptest! {
    #[test]
    fn text_of_any_width(bytes in prop::collection::vec(any::<u8>(), 0..60), scale in 0usize..50) {
        let expected = without_zeros(&slow_text(&bytes, scale));
        prop_assert_eq!(text(&bytes, scale as i64), Some(expected));
    }

    #[test]
    fn integers_of_any_width(number: i128, wider in 0usize..20) {
        let fill = if number < 0 { 0xff } else { 0 };
        let bytes = [vec![fill; wider], number.to_be_bytes().to_vec()].concat();
        prop_assert_eq!(integer(&bytes), Some(number));
        prop_assert_eq!(text(&bytes, 0), Some(number.to_string()));
        // And in as few bytes as it takes.
        let short: Vec<u8> = {
            let bytes = number.to_be_bytes();
            let spare = bytes.windows(2).take_while(|pair| pair[0] == fill && (pair[1] & 0x80 != 0) == (number < 0));
            bytes[spare.count()..].to_vec()
        };
        prop_assert_eq!(integer(&short), Some(number));
    }

    #[test]
    fn floats_are_the_nearest(number: i128, shift in 0u32..127, scale in 0i64..40) {
        let number = number >> shift;
        let bytes = number.to_be_bytes();
        let nearest: f64 = text(&bytes, scale).unwrap().parse().unwrap();
        prop_assert_eq!(float(&bytes, scale), Some(nearest));
    }
}

#[test]
fn the_ends() {
    assert_eq!(text(&[], 0).as_deref(), Some("0"));
    assert_eq!(text(&[], 2).as_deref(), Some("0.00"));
    assert_eq!(text(&[0x80], 2).as_deref(), Some("-1.28"));
    assert_eq!(text(&[5], 2).as_deref(), Some("0.05"));
    assert_eq!(text(&[5], -2).as_deref(), Some("500"));
    assert_eq!(text(&[0], -2).as_deref(), Some("0"));
    assert_eq!(integer(&[0; 17]), Some(0));
    assert_eq!(integer(&[1; 17]), None);
    let least = [&[0x80][..], &[0; 16]].concat();
    assert_eq!(
        text(&least, 0).as_deref(),
        Some("-43556142965880123323311949751266331066368")
    );
    assert_eq!(
        text(&[1; BYTES_MAX + 1], 0),
        None,
        "time must not grow without end"
    );
    assert_eq!(text(&[1], i64::MAX), None);
    assert_eq!(text(&[1], i64::MIN), None);
    assert!(text(&[1; BYTES_MAX], SCALE_MAX as i64).is_some());
}
