const slider = document.getElementById("strength");
const follow = () => document.documentElement.style.setProperty("--strength", slider.value / 100);
document.getElementById("fade").hidden = false;
slider.addEventListener("input", follow);
follow();
