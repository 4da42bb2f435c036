export function mount(root) { return { end() {} }; }
