//! The one macro that declares a contract type.

/// Declares a `repr(C)` plain-data struct. On the host it also derives zerocopy's parsing traits, which refuse implicit
/// padding; the BPF build needs none of that code.
macro_rules! pod {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            not(target_arch = "bpf"),
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }

        impl $name {
            /// Name, size and `(field, offset, size)` of each field: what the layout golden file holds.
            pub const LAYOUT: crate::event::Layout = crate::event::Layout {
                name: stringify!($name),
                size: size_of::<$name>(),
                fields: &[$((stringify!($field), core::mem::offset_of!($name, $field), size_of::<$ty>()),)*],
            };
        }
    };
}
